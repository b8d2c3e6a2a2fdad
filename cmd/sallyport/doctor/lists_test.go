package doctor

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
)

// TestRevocationLists checks the words about lists of client certificates: one that is served, one
// that is not, and one of another authority.
func TestRevocationLists(t *testing.T) {
	root, other := authtest.NewCA("root", time.Now(), nil), authtest.NewCA("other", time.Now(), nil)
	lists := map[string][]byte{"/good": root.Revoke(time.Now(), nil, root.Client("bob", nil)), "/other": other.Revoke(time.Now(), nil)}
	at := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lists[r.URL.Path] == nil {
			http.NotFound(w, r)
			return
		}
		w.Write(lists[r.URL.Path])
	}))
	w := newWorld(t)
	w.file(t, "clients.pem", string(authtest.PEM(root)))
	config := start + "client_certificates: {ca: clients.pem, crl: [\"http://" + at + "/good\", \"http://" + at + "/none\", \"http://" + at + "/other\", \"http://127.0.0.1:1/\"]}\nroutes:\n" +
		route("a.localhost", "http://"+at, "callers: cert")
	var b strings.Builder
	about := false
	for line := range strings.SplitAfterSeq(w.examine(t, config, "", ""), "\n") {
		if about = strings.Contains(line, " crl ") || about && strings.Contains(line, "  > "); about {
			b.WriteString(line)
		}
	}
	golden(t, "lists.txt", b.String())
}
