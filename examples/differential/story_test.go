// Package differential holds the story of four servers that read HTTP/1.1 each in
// its own way, and must read alike whatever the gateway forwards to them.
package differential

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { flag.Parse(); os.Exit(story.Run(m)) }

var (
	seed     = flag.Uint64("seed", 1, "of the requests")
	requests = flag.Int("requests", 3000, "how many are sent to each reader")
)

// seen is what one reader made of a case, and what the client was told.
type seen struct {
	records  []record
	statuses []int // of all answers
	echoes   int   // answers of the echo
	refusals []string
}

// TestReadersAgree sends each case through the gateway to each reader: all must
// have read the same requests, as many as were answered, and none that the gateway
// has not admitted.
func TestReadersAgree(t *testing.T) {
	readers := startReaders(t)
	g := startGateway(t, readers)
	all := make([]string, *requests)
	for n := range all {
		all[n] = generate(*seed, n)
	}
	views := send(t, g.Plain, readers, all)
	g.Process.Stop(t) // nothing is under way any more
	for i, r := range readers {
		if bad := collect(r.records(t), views[i]); len(bad) > 0 {
			t.Errorf("%s read what belongs to no case: %+v", r.name, bad[0])
		}
		for _, e := range r.relay.Take() {
			if fault := oneAnswer(e); fault != "" {
				t.Errorf("%s: %s to\n%q\n%q", r.name, fault, e.Request, e.Response)
			}
		}
	}
	forwarded, wrong := 0, 0
	for n, raw := range all {
		fault := compare(readers, views, n)
		forwarded += min(1, len(views[0][n].records))
		if fault != "" {
			if wrong++; wrong <= 10 {
				t.Errorf("case %d: %s; the client sent\n%q", n, fault, raw)
			}
		}
	}
	t.Logf("seed %d: of %d requests %d came up, %d of them in doubt", *seed, *requests, forwarded, wrong)
	if forwarded < *requests/20 || forwarded > *requests*19/20 {
		t.Errorf("%d of %d requests came up: the cases show nothing", forwarded, *requests)
	}
}

func startGateway(t *testing.T, readers []*reader) *story.Gateway {
	t.Helper()
	var replace []string
	for i, r := range readers {
		replace = append(replace, fmt.Sprintf("127.0.0.1:87%02d", i+1), r.relay.Address)
	}
	g := story.StartGateway(t, replace...)
	g.Process.Listens(t, g.Plain)
	return g
}

// send sends every case to every reader, several at once.
func send(t *testing.T, address string, readers []*reader, all []string) [][]seen {
	t.Helper()
	views := make([][]seen, len(readers))
	jobs := make(chan [2]int)
	var lanes sync.WaitGroup
	for range 16 {
		lanes.Go(func() {
			for j := range jobs {
				raw := strings.ReplaceAll(all[j[1]], "HOST", readers[j[0]].host)
				if err := ask(address, raw, &views[j[0]][j[1]]); err != nil {
					t.Errorf("case %d: %v", j[1], err)
				}
			}
		})
	}
	for i := range readers {
		views[i] = make([]seen, len(all))
	}
	for n := range all {
		for i := range readers {
			jobs <- [2]int{i, n}
		}
	}
	close(jobs)
	lanes.Wait()
	return views
}

// ask sends one case on a connection of its own and reads all answers. A request
// whose end does not come is left after a while, as a client would that gives up.
func ask(address, raw string, v *seen) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, raw) // the gateway may refuse before it has all
	leave := time.AfterFunc(2*time.Second, func() { _ = c.(*net.TCPConn).CloseWrite() })
	defer leave.Stop()
	text, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return fmt.Errorf("the connection still stands after 20 s: %q", text)
	}
	return v.read(text, raw)
}

// read takes the answers apart.
func (v *seen) read(text []byte, raw string) error {
	in := bufio.NewReader(bytes.NewReader(text))
	for {
		if _, err := in.Peek(1); err != nil {
			return nil
		}
		method := "GET" // it matters only whether there is content, which there may be where the method was not read
		if start, _ := in.Peek(5); len(v.statuses) == 0 && strings.HasPrefix(raw, "HEAD ") {
			method = "HEAD"
		} else if string(start) != "HTTP/" {
			return nil
		}
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return fmt.Errorf("the answers %q: %v", text, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return fmt.Errorf("the answers %q: %v", text, err)
		}
		switch {
		case res.StatusCode < 200:
			continue
		case res.Header.Get("X-Echo") != "":
			v.echoes++
		case !bytes.Contains(body, []byte(`"reason"`)) && method != "HEAD":
			v.refusals = append(v.refusals, fmt.Sprintf("%d %q", res.StatusCode, body))
		}
		v.statuses = append(v.statuses, res.StatusCode)
	}
}

// collect gives the records to their cases and returns those that belong to none.
func collect(all []record, views []seen) (bad []record) {
	for _, r := range all {
		var n int
		if _, err := fmt.Sscanf(r.Target, "/case/%06d", &n); err != nil || n >= len(views) {
			bad = append(bad, r)
			continue
		}
		views[n].records = append(views[n].records, r)
	}
	return bad
}

// oneAnswer says what is wrong with what a reader answered to one request: it must
// be one answer, and whole, unless the connection was given up.
func oneAnswer(e story.Exchange) string {
	if len(e.Response) == 0 {
		return ""
	}
	in := bufio.NewReader(bytes.NewReader(e.Response))
	method, _, _ := strings.Cut(string(e.Request[:min(len(e.Request), 30)]), " ")
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return "no answer"
		}
		if res.StatusCode < 200 {
			continue
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if left, _ := io.ReadAll(in); len(left) > 0 {
			return "a second answer"
		}
		return ""
	}
}

// anyHost finds the reader's host, or the beginning of it, in the case's last request
// where that became the content of another.
var anyHost = regexp.MustCompile("Host: [a-z]{1,2}")

// compare says how the readers differ on a case.
func compare(readers []*reader, views [][]seen, n int) string {
	first := &views[0][n]
	for i, r := range readers {
		v := &views[i][n]
		if len(v.refusals) > 0 {
			return fmt.Sprintf("%s refuses what came up: %s", r.name, v.refusals[0])
		}
		if v.echoes != len(v.records) {
			return fmt.Sprintf("%s answers %d requests and has read %d: %+v", r.name, v.echoes, len(v.records), v.records)
		}
		if !slices.Equal(v.statuses, first.statuses) {
			return fmt.Sprintf("the client gets %v from %s, and %v from %s", v.statuses, r.name, first.statuses, readers[0].name)
		}
		for k, one := range v.records {
			if host, _, _ := strings.Cut(one.Host, ":"); host != r.host {
				return fmt.Sprintf("%s reads the host %q", r.name, one.Host)
			}
			other := first.records[k]
			one.Host, one.Body = "", anyHost.ReplaceAllString(one.Body, "Host: ")
			other.Host, other.Body = "", anyHost.ReplaceAllString(other.Body, "Host: ")
			if one != other {
				return fmt.Sprintf("%s reads %+v, %s %+v", r.name, one, readers[0].name, other)
			}
		}
	}
	return ""
}
