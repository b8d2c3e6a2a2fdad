// Package interop holds the story of gRPC's own interoperability suite through the gateway.
package interop

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// cases are the cases of grpc-go's client, with the last line that it prints. The cases left out need
// a cloud account, or several servers that name themselves, which grpc-go's server does not.
var cases = [][2]string{
	{"empty_unary", "EmptyUnaryCall done"},
	{"large_unary", "LargeUnaryCall done"},
	{"client_streaming", "ClientStreaming done"},
	{"server_streaming", "ServerStreaming done"},
	{"ping_pong", "Pingpong done"},
	{"empty_stream", "Emptystream done"},
	{"timeout_on_sleeping_server", "TimeoutOnSleepingServer done"},
	{"cancel_after_begin", "CancelAfterBegin done"},
	{"cancel_after_first_response", "CancelAfterFirstResponse done"},
	{"status_code_and_message", "StatusCodeAndMessage done"},
	{"special_status_message", "SpecialStatusMessage done"},
	{"custom_metadata", "CustomMetadata done"},
	{"unimplemented_method", "UnimplementedMethod done"},
	{"unimplemented_service", "UnimplementedService done"},
	{"rpc_soak", "RpcSoak done"},
	{"channel_soak", "ChannelSoak done"},
	{"orca_per_rpc", "ORCAPerRPC done"},
	{"orca_oob", "ORCAOOB done"},
}

// suite is the client, before a gateway with two servers behind it.
type suite struct {
	client  string
	gateway *story.Gateway
}

func start(t *testing.T, provider *story.Provider) *suite {
	t.Helper()
	installed := story.Installed(t, "interop", "go.mod", "go.sum")
	file := func(name string) string { return filepath.Join(installed, name) }
	serve := func(args ...string) (address string) {
		address = story.FreeAddress(t)
		_, port, _ := net.SplitHostPort(address)
		story.Start(t, "server", exec.Command(file("server"), append(args, "-port", port)...)).Listens(t, address)
		return address
	}
	plain := serve()
	secret := serve("-use_tls", "-tls_cert_file", file("server1.pem"), "-tls_key_file", file("server1.key"))
	return &suite{client: file("client"), gateway: story.StartGateway(t,
		"127.0.0.1:10000", plain, "127.0.0.1:10001", secret,
		" ca.pem ", " "+file("ca.pem")+" ",
		"https://localhost:9000", provider.URL, "../openid-provider/provider.crt", provider.CA)}
}

// run runs one case and returns what the client printed, and whether it succeeded.
func (s *suite) run(t *testing.T, host, name, token string, args ...string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, port, _ := net.SplitHostPort(s.gateway.Address)
	cmd := exec.CommandContext(ctx, s.client, append(args, "-test_case", name, "-use_tls", "-use_test_ca", "-ca_file", s.gateway.CA,
		"-server_host", "127.0.0.1", "-server_port", port, "-server_host_override", host)...)
	if token != "" {
		cmd.Args = append(cmd.Args, "-additional_metadata", "authorization:Bearer "+token)
	}
	cmd.Env = append(os.Environ(), "GRPC_GO_LOG_SEVERITY_LEVEL=info")
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func TestInterop(t *testing.T) {
	provider := story.StartProvider(t)
	s := start(t, provider)
	token := provider.Token(t, "models.predict", "")
	for _, host := range []string{"plain.localhost", "tls.localhost"} {
		passed := 0
		for _, c := range cases {
			t.Run(host+" "+c[0], func(t *testing.T) {
				out, ok := s.run(t, host, c[0], token, options(c[0])...)
				if !ok || !strings.Contains(out, c[1]) {
					t.Fatal(out)
				}
				passed++
			})
		}
		t.Logf("%s: %d of %d cases passed", host, passed, len(cases))
	}
}

// options returns the flags that a case needs besides its name.
func options(name string) []string {
	switch {
	case strings.HasPrefix(name, "orca"): // the policy that keeps the servers' reports
		return []string{"-service_config_json", `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`}
	case strings.HasSuffix(name, "soak"): // a busy machine may be slow
		return []string{"-soak_iterations", "100", "-soak_num_threads", "4",
			"-soak_overall_timeout_seconds", "50", "-soak_per_iteration_max_acceptable_latency_ms", "30000"}
	}
	return nil
}

// TestCaseFails checks that the test sees a failing case.
func TestCaseFails(t *testing.T) {
	provider := story.StartProvider(t)
	s := start(t, provider)
	for _, x := range []struct{ name, token, want string }{
		{"no token", "", "code = Unauthenticated desc = a credential is required"},
		{"a scope is missing", provider.Token(t, "models.read", ""), "code = PermissionDenied"},
	} {
		if out, ok := s.run(t, "plain.localhost", "large_unary", x.token); ok || !strings.Contains(out, x.want) {
			t.Errorf("%s: %v\n%s", x.name, ok, out)
		}
	}
}
