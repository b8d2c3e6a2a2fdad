package admin_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"sallyport/proxy/admin"
)

func Example() {
	s, err := admin.New(admin.Options{State: func() admin.State { return admin.State{Ready: true} }})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()

	res, err := http.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	fmt.Println(res.Status)

	cancel()
	fmt.Println(<-done)
	// Output:
	// 200 OK
	// <nil>
}
