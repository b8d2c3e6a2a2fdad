package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"sallyport/proxy/audit"
)

func Example() {
	var out bytes.Buffer
	log, err := audit.New(audit.Config{}, audit.Options{Stdout: &out})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()

	if log.Reserve() == nil { // before anything is forwarded
		log.Write(&audit.Record{
			Time:      time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC),
			RequestID: "01j8",
			Method:    "POST",
			Path:      "/predict\n",
			Status:    200,
			Reserved:  true,
		})
	}
	cancel()
	if err := <-done; err != nil {
		fmt.Println(err)
	}
	fmt.Print(out.String())
	// Output:
	// {"time":"2026-11-24T09:30:00.000000Z","id":"01j8","method":"POST","path":"/predict\u000a","status":200,"bytes_in":0,"bytes_out":0,"duration_us":0,"upstream_us":0,"own_us":0}
}
