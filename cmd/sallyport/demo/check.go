package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/oauth2/clientcredentials"
)

// call is one call of `demo --check`, and the expected response.
type call struct {
	name   string
	token  string // "" for none
	query  string
	field  [2]string // one more field of the request
	status int
	why    string // what the challenge must contain; "" for predictions in a 200
}

// callAll makes every call, prints a table of the results, and returns an error if one
// differs from the expectation.
func (d *demo) callAll(ctx context.Context) error {
	calls, err := d.calls(ctx)
	if err != nil {
		return err
	}
	client, err := d.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	table := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CALL\tWANT\tGOT\t")
	var rows []row
	for _, c := range calls {
		want := strings.TrimSpace(fmt.Sprint(c.status, " ", c.why))
		if c.status == http.StatusOK {
			want += " predictions"
		}
		rows = append(rows, row{c.name, want, d.call(ctx, client, c)})
	}
	rows = append(rows, d.signedRows(ctx, client)...)
	surprises, admitted := 0, 0
	for _, r := range rows {
		if strings.HasPrefix(r.want, "200 ") {
			admitted++
		}
	}
	rows = append(rows, row{"calls that reached the model server", fmt.Sprint(admitted), fmt.Sprint(d.models.Served())})
	for _, r := range rows {
		verdict := ""
		if r.got != r.want {
			surprises++
			verdict = "surprise"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.name, r.want, r.got, verdict)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if surprises > 0 {
		return fmt.Errorf("demo --check: %d surprises", surprises)
	}
	return nil
}

// calls returns calls that the gateway must admit and calls that it must refuse. It
// requests the first token like a client, and makes the wrong ones itself.
func (d *demo) calls(ctx context.Context) ([]call, error) {
	client := clientcredentials.Config{
		ClientID: clientID, ClientSecret: d.secret, TokenURL: d.issuer.TokenURL(), Scopes: []string{scopePredict},
	}
	fresh, err := client.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for a token: %w", err)
	}
	forger, err := NewIssuer(d.issuer.config)
	if err != nil {
		return nil, err
	}
	forger.kid = d.issuer.kid
	sign := func(i *Issuer, scope string, change func(map[string]any)) string {
		claims := i.Claims(clientID, scope)
		change(claims)
		token, errSign := i.Sign(claims)
		err = errors.Join(err, errSign)
		return token
	}
	as := func(map[string]any) {}
	calls := []call{
		{name: "a fresh token", token: fresh.AccessToken, status: 200},
		{name: "the same token again", token: fresh.AccessToken, status: 200},
		{name: "no token", status: 401, why: "Bearer"},
		{name: "a token in the query", query: "?access_token=" + fresh.AccessToken, status: 401, why: "Bearer"},
		{name: "a token without the scope", token: sign(d.issuer, scopeStatus, as), status: 403, why: "insufficient_scope"},
		{name: "an expired token", status: 401, why: "invalid_token", token: sign(d.issuer, scopePredict, func(c map[string]any) {
			c["iat"], c["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
		})},
		{name: "a token for another audience", status: 401, why: "invalid_token", token: sign(d.issuer, scopePredict, func(c map[string]any) {
			c["aud"] = "billing"
		})},
		{name: "a token of a forger", token: sign(forger, scopePredict, as), status: 401, why: "invalid_token"},
		{name: "a caller who says who it is", token: fresh.AccessToken, field: [2]string{"X_Sallyport.Principal", "admin"}, status: 400},
	}
	return calls, err
}

// client returns a client that trusts only the local authority and connects to the
// gateway whatever the host name resolves to.
func (d *demo) client() (*http.Client, error) {
	root, err := os.ReadFile(d.root)
	if err != nil {
		return nil, fmt.Errorf("reading the authority's root: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return nil, errors.New("the authority's root is not a certificate")
	}
	var dialer net.Dialer
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, d.front.Addr().String())
			},
		},
	}, nil
}

// call makes one call and returns the status and the evidence of its reason.
func (d *demo) call(ctx context.Context, client *http.Client, c call) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url()+predictPath+c.query, strings.NewReader(predictBody))
	if err != nil {
		return err.Error()
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.field[0] != "" {
		r.Header[c.field[0]] = []string{c.field[1]}
	}
	answer, err := client.Do(r)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err.Error()
	}
	got := fmt.Sprint(answer.StatusCode)
	if answer.StatusCode == http.StatusOK {
		if predicts(body) {
			return got + " predictions"
		}
		return got + " something else"
	}
	if challenge := answer.Header.Get("WWW-Authenticate"); c.why != "" && strings.Contains(challenge, c.why) {
		got += " " + c.why
	}
	return got
}

// predicts reports whether a body contains the predictions for predictBody.
func predicts(body []byte) bool {
	var result struct{ Predictions []float64 }
	return json.Unmarshal(body, &result) == nil && slices.Equal(result.Predictions, []float64{2.5, 3, 4.5})
}
