package clientcert_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/clientcert"
	"sallyport/proxy/setting"
)

func ExampleTrust_Verify() {
	ca := authtest.NewCA("lab", time.Now(), nil)
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "clients-ca.pem")
	if err := os.WriteFile(file, authtest.PEM(ca), 0o600); err != nil {
		panic(err)
	}
	entries := []clientcert.Config{{CA: setting.List[setting.Path]{setting.Path(file)}}}
	hosts, err := clientcert.New(entries, clientcert.NewMemory(clientcert.MemoryOptions{}), nil)
	if err != nil {
		panic(err)
	}
	trust := hosts.For("models.example.com")

	batch := ca.Client("batch", authtest.URIs("spiffe://lab/batch"))
	caller, err := trust.Verify(authtest.ChainOf(batch))
	fmt.Println(caller, err)
	stranger := authtest.NewCA("elsewhere", time.Now(), nil).Client("batch", nil)
	_, err = trust.Verify(authtest.ChainOf(stranger))
	var refused *clientcert.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Reason)
	}
	// Output:
	// cert:spiffe://lab/batch <nil>
	// certificate_unknown_ca
}
