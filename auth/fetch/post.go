package fetch

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// Answer is what a server answered to a form.
type Answer struct {
	Type string // the media type in lower case, without parameters; "" if it cannot be read
	Text []byte
}

// Form is a request for [Client.Post].
type Form struct {
	Values url.Values
	Accept string // the media type of the answer
	// User and Password are sent by Basic (RFC 7617) unless User is "".
	User, Password string
}

// Post sends a form and returns the answer. The request must be safe to repeat: it is sent
// again if a kept connection was closed meanwhile. The error is always an [*Error].
func (c *Client) Post(ctx context.Context, address string, form *Form) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Values.Encode()))
	if err != nil {
		return Answer{}, &Error{Kind: BadURL}
	}
	r.Header.Set("Accept", form.Accept)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if form.User != "" {
		r.SetBasicAuth(form.User, form.Password)
	}
	r.Header["Idempotency-Key"] = nil // net/http then repeats the request, and sends no such field
	answer, err := c.http.Do(r)
	if err != nil {
		return Answer{}, wrap(err)
	}
	a := Answer{}
	a.Type, _, _ = mime.ParseMediaType(answer.Header.Get("Content-Type"))
	a.Text, err = io.ReadAll(answer.Body)
	if err != nil {
		return Answer{}, wrap(err)
	}
	return a, nil
}
