package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/auth/httpsig"
	"sallyport/cmd/sallyport/login"
	"sallyport/proxy"
)

// addCompletions sets what a shell offers for every argument and every flag with a value. Without a
// completion it would offer files.
func addCompletions(root *cobra.Command) {
	byFlag := flagCompletions()
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			complete, ok := byFlag[c.Name()+" "+f.Name]
			if !ok {
				complete, ok = byFlag[f.Name]
			}
			if ok {
				_ = c.RegisterFlagCompletionFunc(f.Name, complete) // fails for a flag that has one
			}
		})
		if c.ValidArgsFunction == nil {
			switch c.Name() {
			case "token":
				c.ValidArgsFunction = files() // of the command to run
			case "curl", "explain":
				c.ValidArgsFunction = fromConfig(routeURLs)
			case "revoke":
				c.ValidArgs = []string{"principal", "jti", "key", "apikey", "certificate"}
			case "obtain", "renew", "export":
				c.ValidArgsFunction = fromConfig(hosts)
			default:
				c.ValidArgsFunction = cobra.NoFileCompletions
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
}

// files completes with files, of any name or with one of the extensions.
func files(extensions ...string) cobra.CompletionFunc {
	if len(extensions) == 0 {
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		}
	}
	return cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
}

// flagCompletions returns the completions by flag, or by "COMMAND FLAG" if a flag means different
// things in different commands.
func flagCompletions() map[string]cobra.CompletionFunc {
	oneOf := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	folder := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	methods := oneOf("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
	all := map[string]cobra.CompletionFunc{
		"config": files("yaml", "yml"),
		"socket": files("sock"),
		"secret": files(), "public-key": files(), "response-key": files(), "cacert": files(),
		"head": files(), "response": files(), "vector": files("json"), "cert": files(), "verify base": files(),
		"secret-file": files(), "ca": files(), "token key": files(), "token auth": oneOf("basic", "post"), "token issuer": fromConfig(issuerNames), "token url": cobra.NoFileCompletions, "token redirect": oneOf(login.DefaultRedirect), "token wait": cobra.NoFileCompletions,
		"export key": files(), "curl output": files(),
		"out": folder, "dir": folder,
		"check output": oneOf("table", "json"), "doctor output": oneOf("table", "json"), "token-file": files(), "status output": oneOf("table", "json"),
		"against": files(), "explain output": oneOf("table", "json"), "explain data": files(),
		"list output": oneOf("table", "json"), "keygen output": oneOf("table", "json"), "version output": oneOf("text", "json"),
		"alg":     oneOf(string(httpsig.HMACSHA256), string(httpsig.Ed25519)),
		"scheme":  oneOf("https", "http"),
		"tag":     oneOf(httpsig.TagRequest, httpsig.TagResponse),
		"request": methods, "method": methods,
		"directory": oneOf("letsencrypt-staging", "letsencrypt", "zerossl"),
		"route":     fromConfig(routeNames),
		"url":       fromConfig(routeURLs),
		"upstream":  fromConfig(upstreams),
	}
	for _, name := range strings.Fields("key-id data data-binary header max-time resolve partner api-key id days overlap at before until host issuer audience email listen client-id scope resource env as claim from group grpc model signature version acr-values claims max-age") {
		all[name] = cobra.NoFileCompletions
	}
	return all
}

// fromConfig completes with values from the configuration that --config names, or from gateway.yaml.
// It offers nothing if the configuration has faults.
func fromConfig(values func(*proxy.Config) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		path := "gateway.yaml"
		if f := c.Flag("config"); f != nil {
			path = f.Value.String()
		}
		config, err := proxy.LoadConfig(path)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all := slices.DeleteFunc(values(config), func(v string) bool { return slices.Contains(args, v) })
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
}

func routeNames(c *proxy.Config) []string {
	var all []string
	for _, r := range c.Table() {
		all = append(all, r.Name)
	}
	return all
}

// hosts returns the hosts of all routes without patterns.
func hosts(c *proxy.Config) []string {
	var all []string
	for _, r := range c.Table() {
		all = append(all, slices.DeleteFunc(slices.Clone(r.Host), func(h string) bool { return strings.Contains(h, "*") })...)
	}
	return all
}

func routeURLs(c *proxy.Config) []string {
	var all []string
	for _, h := range hosts(c) {
		all = append(all, "https://"+h+"/")
	}
	return all
}

// upstreams returns the URLs of all endpoints.
func upstreams(c *proxy.Config) []string {
	all := map[string]bool{}
	for _, r := range c.Table() {
		for _, e := range r.Endpoints {
			all[e] = true
		}
	}
	return slices.Collect(maps.Keys(all))
}
