package fetch

import (
	"context"
	"net/http"
	"net/url"
)

// Visit asks for a page as a browser without cookies does, once. It returns the status, and where a redirect
// leads; nil for no redirect. The error is always an [*Error].
func Visit(ctx context.Context, o Options, page *url.URL) (status int, to *url.URL, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return 0, nil, &Error{Kind: BadURL}
	}
	r.Header.Set("Accept", "text/html")
	o.AnyStatus, o.Idle = true, 0
	answer, err := New(o).http.Do(r)
	if err != nil {
		return 0, nil, wrap(err)
	}
	defer answer.Body.Close()
	location := answer.Header.Get("Location")
	if answer.StatusCode < 300 || answer.StatusCode > 399 || location == "" {
		return answer.StatusCode, nil, nil
	}
	if to, err = page.Parse(location); err != nil {
		return 0, nil, &Error{Kind: Garbage, Err: err}
	}
	return answer.StatusCode, to, nil
}
