package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"sallyport/auth/httpsig"
)

// The partner signs its requests instead of sending a token.
const (
	partner   = "partner"
	partnerID = "partner-demo"
)

// newKey makes the partner's key, like `sallyport keygen`. It also writes an empty nonce
// file, so that the gateway accepts signatures at once.
func (d *demo) newKey() error {
	secret := make([]byte, 64)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	var err error
	if d.key, err = httpsig.HMACKey(partnerID, secret); err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString(secret) + "\n"
	for _, f := range [...]struct{ name, text string }{{d.keyFile(), text}, {d.nonceFile(), ""}} {
		if err := os.WriteFile(f.name, []byte(f.text), 0o600); err != nil {
			return fmt.Errorf("writing the key: %w", err)
		}
	}
	return nil
}

func (d *demo) keyFile() string   { return filepath.Join(d.dir, partnerID+".key") }
func (d *demo) nonceFile() string { return filepath.Join(d.dir, "demo-nonces") }

// row is the name of a call, the expected result and the actual one.
type row struct{ name, want, got string }

// signedRows makes a signed call, repeats it, and makes one whose body was changed after
// signing.
func (d *demo) signedRows(ctx context.Context, client *http.Client) []row {
	seen := &interceptor{base: client.Transport}
	signing := &http.Client{Timeout: client.Timeout, Transport: &httpsig.Transport{Base: seen, Key: d.key}}
	rows := []row{{name: "a signed request", want: "200 predictions, signed", got: d.signedCall(ctx, signing)}}
	again := seen.copy(ctx)
	rows = append(rows, row{"the same signed request again", "401 replayed", reasonOf(client, again)})

	// Sign a request without sending it, to change its body.
	seen.block = true
	_ = d.signedCall(ctx, signing)
	changed := seen.copy(ctx)
	if changed != nil {
		changed.Body = io.NopCloser(strings.NewReader(strings.Replace(predictBody, "5.0", "9.0", 1)))
	}
	return append(rows, row{"a signed request with another body", "400 digest_mismatch", reasonOf(client, changed)})
}

// signedCall makes one signed call, verifies the response and describes it.
func (d *demo) signedCall(ctx context.Context, signing *http.Client) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url()+predictPath, strings.NewReader(predictBody))
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := signing.Do(r)
	var fault *httpsig.Error
	switch {
	case errors.As(err, &fault):
		return "an answer that is not signed: " + string(fault.Code)
	case err != nil:
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20)) // fails if the content does not verify
	if err != nil {
		return err.Error()
	}
	if answer.StatusCode == http.StatusOK && predicts(body) {
		return "200 predictions, signed"
	}
	return fmt.Sprint(answer.StatusCode, " ", reasonIn(body))
}

// interceptor records the last signed request, like an attacker between client and
// gateway.
type interceptor struct {
	base  http.RoundTripper
	last  *http.Request
	body  []byte
	block bool // record requests without sending them
}

func (w *interceptor) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.last, w.body = r.Clone(r.Context()), body
	if w.block {
		return nil, errors.New("blocked by the interceptor")
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return w.base.RoundTrip(r)
}

// copy returns a copy of the last request; nil if there was none.
func (w *interceptor) copy(ctx context.Context) *http.Request {
	if w.last == nil {
		return nil
	}
	r := w.last.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(w.body))
	return r
}

// reasonOf sends a request unchanged and returns the status and the reason of the refusal.
func reasonOf(client *http.Client, r *http.Request) string {
	if r == nil {
		return "nothing was sent"
	}
	answer, err := client.Transport.RoundTrip(r)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(answer.StatusCode, " ", reasonIn(body))
}

// reasonIn returns the reason in the body of a refusal; "" for none.
func reasonIn(body []byte) string {
	var refusal struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(body, &refusal) // a body that is not a refusal has no reason
	return refusal.Reason
}
