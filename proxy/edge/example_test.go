package edge_test

import (
	"fmt"
	"os"

	"sallyport/proxy/edge"
	"sallyport/proxy/setting"
)

func Example() {
	dir, err := os.MkdirTemp("", "sallyport-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	e, err := edge.New(
		edge.Config{Local: &edge.LocalConfig{Dir: setting.Place(dir)}},
		edge.Options{Hosts: []string{"models.localhost"}},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range e.Certificates() {
		fmt.Println(c.Source, c.Hosts)
	}
	// Output: local [models.localhost]
}
