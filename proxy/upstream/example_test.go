package upstream_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s", r.URL.Path, r.Header.Get("X-Sallyport-Principal"))
	}))
	defer server.Close()
	at, err := setting.ParseURL(server.URL)
	if err != nil {
		panic(err)
	}
	u, err := upstream.NewPools(upstream.Options{}).Open("churn", upstream.Config{Rest: setting.List[setting.URL]{at}}, false)
	if err != nil {
		panic(err)
	}
	defer u.Close()

	answer, err := u.Send(context.Background(), &upstream.Request{
		Method:   "GET",
		Target:   "/predict",
		Fields:   message.Fields{{Name: "x-sallyport-principal", Value: "issuer/corp:alice"}},
		Timeouts: upstream.DefaultTimeouts(),
	})
	if err != nil {
		panic(err)
	}
	defer answer.Close()
	body, err := io.ReadAll(answer.Body)
	fmt.Println(answer.Head.Status, string(body), err)
	// Output: 200 /predict for issuer/corp:alice <nil>
}
