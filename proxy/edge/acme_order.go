package edge

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"sallyport/proxy/setting"
)

// authorityClient is an ACME authority and our account there. It is safe for concurrent use.
type authorityClient struct {
	directory string
	key       string // name of the authority in the storage
	profile   string
	email     string
	eab       *EABConfig
	storage   *certStorage
	solvers   map[string]acmez.Solver
	roots     *x509.CertPool // nil for the system's roots

	registering sync.Mutex // so that only one account is registered
}

func newAuthorityClient(c ACMEIssuer, email string, storage *certStorage, solvers map[string]acmez.Solver) (*authorityClient, error) {
	a := &authorityClient{directory: directories(c.Directory), profile: c.Profile, email: email, eab: c.EAB, storage: storage, solvers: solvers}
	u, err := url.Parse(a.directory)
	if err != nil {
		return nil, fmt.Errorf("acme: directory: %w", err)
	}
	a.key = issuerKey(u)
	if c.CA != "" {
		if a.roots, err = readRoots(c.CA); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// issuerKey returns the authority's folder in the storage, named as certmagic does.
func issuerKey(u *url.URL) string {
	key := u.Host
	if p := strings.Trim(strings.NewReplacer("/", "-", "\\", "-").Replace(u.Path), "-"); p != "" {
		key += "-" + p
	}
	return certmagic.StorageKeys.Safe(key)
}

func readRoots(file setting.Path) (*x509.CertPool, error) {
	text, err := readPEM(string(file), false)
	if err != nil {
		return nil, fmt.Errorf("acme: reading the authority's roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("acme: no certificate in %s", file)
	}
	return pool, nil
}

// order is a request for one certificate from one authority. It implements
// [certmagic.Issuer].
type order struct {
	*authorityClient
	replaces *x509.Certificate // the certificate to replace, of the same authority; nil for none
	bounds   *bounds
	failed   func(directory string, err error)
	fresh    func() bool // reports whether another process has renewed the certificate
}

// errFresh ends an order that is no longer needed.
var errFresh = errors.New("the certificate has been renewed already")

// IssuerKey returns the authority's name in the storage.
func (o *order) IssuerKey() string { return o.key }

// Issue requests the certificate.
func (o *order) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if o.fresh() {
		return nil, errFresh
	}
	issued, err := o.issue(ctx, csr)
	if err != nil {
		o.failed(o.directory, err)
		return nil, fmt.Errorf("%s: %w", o.directory, err)
	}
	return issued, nil
}

func (o *order) issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	client := o.client(o.bounds)
	defer client.HTTPClient.CloseIdleConnections()
	replaces := o.replaces
	for again := false; ; again = true {
		account, err := o.account(ctx, client)
		if err != nil {
			return nil, err
		}
		params, err := acmez.OrderParametersFromCSR(account, csr)
		if err != nil {
			return nil, err
		}
		params.Profile = o.profile
		params.Replaces = replaces
		chains, err := client.ObtainCertificate(ctx, params)
		var problem acme.Problem
		if errors.As(err, &problem) && problem.Type == acme.ProblemTypeAccountDoesNotExist && !again {
			// The authority was reset, so the old account key is useless.
			if err := o.storage.setAside(o.accountKey()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		if err != nil && replaces != nil && refusesReplacement(problem) {
			// Naming the replaced certificate is optional (RFC 9773, section 5). Renewal must
			// work even if the authority no longer knows that certificate.
			replaces = nil
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(chains) == 0 {
			return nil, errors.New("the authority offers no certificate")
		}
		return &certmagic.IssuedCertificate{Certificate: chains[0].ChainPEM, Metadata: chains[0]}, nil
	}
}

// refusesReplacement reports whether a problem may concern the replaced certificate: the
// authority does not know it, or it belongs to another account, as after a change of the email
// address. Failed challenges carry an authorization; the order is not repeated for those.
func refusesReplacement(problem acme.Problem) bool {
	switch problem.Type {
	case acme.ProblemTypeAlreadyReplaced, acme.ProblemTypeMalformed, acme.ProblemTypeServerInternal:
		return true
	case acme.ProblemTypeUnauthorized:
		_, challenge := problem.Resource.(acme.Authorization)
		return !challenge
	}
	return false
}

// client returns a client for one order. Close its idle connections afterwards.
func (a *authorityClient) client(b *bounds) *acmez.Client {
	return &acmez.Client{
		Client: &acme.Client{
			Directory:   a.directory,
			HTTPClient:  b.httpClient(a.roots),
			UserAgent:   "sallyport",
			PollTimeout: orderTime,
			Logger:      slog.New(slog.DiscardHandler), // it would log tokens; we log failures ourselves
		},
		ChallengeSolvers: a.solvers,
	}
}

// storedAccount is an account in the storage. One file holds account and key, so that
// neither exists alone.
type storedAccount struct {
	Location string   `json:"location"`
	Contact  []string `json:"contact,omitempty"`
	Key      string   `json:"key"` // PEM
}

func (a *authorityClient) accountKey() string {
	name := a.email
	if name == "" {
		name = "default"
	}
	return path.Join("accounts", a.key, certmagic.StorageKeys.Safe(name)+".json")
}

// account loads our account at the authority, or registers one.
func (a *authorityClient) account(ctx context.Context, client *acmez.Client) (acme.Account, error) {
	a.registering.Lock()
	defer a.registering.Unlock()
	if account, err := a.loadAccount(ctx); err == nil {
		return account, nil
	}
	lock := "account_" + a.key
	if err := a.storage.Lock(ctx, lock); err != nil {
		return acme.Account{}, fmt.Errorf("locking the account: %w", err)
	}
	defer func() { _ = a.storage.Unlock(ctx, lock) }()
	account, err := a.loadAccount(ctx)
	if err == nil {
		return account, nil // another process was first
	}
	if !errors.Is(err, fs.ErrNotExist) {
		// The file is truncated or garbage. A new account has the same rights.
		if err := a.storage.setAside(a.accountKey()); err != nil {
			return acme.Account{}, err
		}
	}
	return a.register(ctx, client)
}

func (a *authorityClient) loadAccount(ctx context.Context) (acme.Account, error) {
	b, err := a.storage.loadKey(ctx, a.accountKey())
	if err != nil {
		return acme.Account{}, err
	}
	var s storedAccount
	if err := json.Unmarshal(b, &s); err != nil {
		return acme.Account{}, err
	}
	key, err := certmagic.PEMDecodePrivateKey([]byte(s.Key))
	if err != nil {
		return acme.Account{}, err
	}
	if s.Location == "" {
		return acme.Account{}, errors.New("account without a location")
	}
	return acme.Account{Status: acme.StatusValid, Location: s.Location, Contact: s.Contact, PrivateKey: key}, nil
}

func (a *authorityClient) register(ctx context.Context, client *acmez.Client) (acme.Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, err
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: crypto.Signer(key)}
	if a.email != "" {
		account.Contact = []string{"mailto:" + a.email}
	}
	if a.eab != nil {
		mac, err := a.eab.Key.Read()
		if err != nil {
			return acme.Account{}, fmt.Errorf("external account binding: %w", err)
		}
		eab := acme.EAB{KeyID: a.eab.KeyID, MACKey: strings.TrimRight(strings.TrimSpace(string(mac)), "=")}
		if err := account.SetExternalAccountBinding(ctx, client.Client, eab); err != nil {
			return acme.Account{}, fmt.Errorf("external account binding: %w", err)
		}
	}
	account, err = client.NewAccount(ctx, account)
	if err != nil {
		return acme.Account{}, fmt.Errorf("registering an account: %w", err)
	}
	text, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return acme.Account{}, err
	}
	b, err := json.MarshalIndent(storedAccount{Location: account.Location, Contact: account.Contact, Key: string(text)}, "", "  ")
	if err != nil {
		return acme.Account{}, err
	}
	if err := a.storage.Store(ctx, a.accountKey(), b); err != nil {
		return acme.Account{}, fmt.Errorf("storing the account: %w", err)
	}
	return account, nil
}

// orderTime is the maximum time of an order, including the creation of DNS records.
const orderTime = 15 * time.Minute

// bounds limits the size and time of an authority's responses, and remembers its
// Retry-After. It serves one order.
type bounds struct {
	now func() time.Time

	mu    sync.Mutex // guards after
	after time.Time  // earliest next request
}

const (
	maxAnswer  = 1 << 20
	answerTime = 30 * time.Second
	// maxRetryAfter caps the Retry-After of an authority.
	maxRetryAfter = 24 * time.Hour
)

func (b *bounds) httpClient(roots *x509.CertPool) *http.Client {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        5 * time.Second,
		MaxIdleConns:           2,
	}
	return &http.Client{
		Transport:     &boundedTransport{t, b},
		Timeout:       answerTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type boundedTransport struct {
	*http.Transport
	bounds *bounds
}

// RoundTrip sends a request and limits the response.
func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = &boundedBody{answer.Body, maxAnswer}
	if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusServiceUnavailable {
		t.bounds.note(answer.Header.Get("Retry-After"))
	}
	return answer, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read returns an error once the response exceeds its limit.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *bounds) note(retryAfter string) {
	now := b.now()
	at, err := http.ParseTime(retryAfter)
	if n, bad := strconv.Atoi(retryAfter); bad == nil && n > 0 {
		at, err = now.Add(time.Duration(min(n, int(maxRetryAfter.Seconds())))*time.Second), nil
	}
	if err != nil {
		return
	}
	if limit := now.Add(maxRetryAfter); at.After(limit) {
		at = limit
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at.After(b.after) {
		b.after = at
	}
}

// until returns the earliest time of the next request; zero if there was no Retry-After.
func (b *bounds) until() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.after
}
