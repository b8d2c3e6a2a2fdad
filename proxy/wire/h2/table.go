package h2

import "sallyport/proxy/message"

// table is the dynamic table of a decoder (RFC 7541, section 2.3.2). Index 1 is the newest entry.
type table struct {
	entries []message.Field // newest last; entries before first are evicted
	first   int
	size    int // as RFC 7541 counts
	most    int // the limit the peer has chosen, at most tableSize
}

// at returns the field with index i in the static and dynamic tables; false if there is none.
func (t *table) at(i int) (*message.Field, bool) {
	if i <= len(staticTable) {
		if i <= 0 {
			return nil, false
		}
		return &staticTable[i-1], true
	}
	i = len(t.entries) - (i - len(staticTable))
	if i < t.first {
		return nil, false
	}
	return &t.entries[i], true
}

func fieldSize(f *message.Field) int { return len(f.Name) + len(f.Value) + perField }

func (t *table) add(f message.Field) {
	n := fieldSize(&f)
	t.shrink(t.most - n)
	if n > t.most {
		return
	}
	if t.first > len(t.entries)/2 {
		left := copy(t.entries, t.entries[t.first:])
		clear(t.entries[left:])
		t.entries, t.first = t.entries[:left], 0
	}
	t.size += n
	t.entries = append(t.entries, f)
}

// shrink evicts entries until the size is at most most.
func (t *table) shrink(most int) {
	for t.size > max(most, 0) {
		f := &t.entries[t.first]
		t.size -= fieldSize(f)
		*f = message.Field{}
		t.first++
	}
}

// staticTable is the table of RFC 7541, appendix A.
var staticTable = [...]message.Field{
	{Name: ":authority"},
	{Name: ":method", Value: "GET"},
	{Name: ":method", Value: "POST"},
	{Name: ":path", Value: "/"},
	{Name: ":path", Value: "/index.html"},
	{Name: ":scheme", Value: "http"},
	{Name: ":scheme", Value: "https"},
	{Name: ":status", Value: "200"},
	{Name: ":status", Value: "204"},
	{Name: ":status", Value: "206"},
	{Name: ":status", Value: "304"},
	{Name: ":status", Value: "400"},
	{Name: ":status", Value: "404"},
	{Name: ":status", Value: "500"},
	{Name: "accept-charset"},
	{Name: "accept-encoding", Value: "gzip, deflate"},
	{Name: "accept-language"},
	{Name: "accept-ranges"},
	{Name: "accept"},
	{Name: "access-control-allow-origin"},
	{Name: "age"},
	{Name: "allow"},
	{Name: "authorization"},
	{Name: "cache-control"},
	{Name: "content-disposition"},
	{Name: "content-encoding"},
	{Name: "content-language"},
	{Name: "content-length"},
	{Name: "content-location"},
	{Name: "content-range"},
	{Name: "content-type"},
	{Name: "cookie"},
	{Name: "date"},
	{Name: "etag"},
	{Name: "expect"},
	{Name: "expires"},
	{Name: "from"},
	{Name: "host"},
	{Name: "if-match"},
	{Name: "if-modified-since"},
	{Name: "if-none-match"},
	{Name: "if-range"},
	{Name: "if-unmodified-since"},
	{Name: "last-modified"},
	{Name: "link"},
	{Name: "location"},
	{Name: "max-forwards"},
	{Name: "proxy-authenticate"},
	{Name: "proxy-authorization"},
	{Name: "range"},
	{Name: "referer"},
	{Name: "refresh"},
	{Name: "retry-after"},
	{Name: "server"},
	{Name: "set-cookie"},
	{Name: "strict-transport-security"},
	{Name: "transfer-encoding"},
	{Name: "user-agent"},
	{Name: "vary"},
	{Name: "via"},
	{Name: "www-authenticate"},
}
