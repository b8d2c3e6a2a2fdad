package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// paste holds the lines to add to gateway.yaml for a key, and the files to make or copy.
type paste struct {
	Top    string // at the top level
	Route  string // in the route, replacing the lines of the same keys
	Policy string // at the end of the policy that the route names; "" if the route has its own rules
	Nonce  string // the state file to make before the first start; "" if none is needed
	Root   string // the root certificate of the local authority, for the partner; "" for none
	rooted bool   // Root exists
}

// known holds what keygen reads in the configuration.
type known struct {
	config *proxy.Config
	route  proxy.RouteInfo
	top    *yaml.Node // of the main file
	list   *yaml.Node // the rules of the route; nil if they are a policy
	policy string     // the name of the policy; "" if the route has its own rules
}

// read fills in top, and the rules of the route.
func (k *known) read(path string) error {
	var err error
	if k.top, err = mapping(path); err != nil {
		return err
	}
	file, err := mapping(k.route.File)
	if err != nil {
		return err
	}
	routes := member(file, "routes")
	if routes == nil {
		return nil
	}
	for _, r := range routes.Content {
		if r.Line != k.route.Line {
			continue
		}
		switch rules := member(r, "rules"); {
		case rules == nil:
		case rules.Kind == yaml.ScalarNode:
			k.policy = rules.Value
		default:
			k.list = rules
		}
	}
	return nil
}

// mapping reads a YAML file and returns its root node. An empty file is an empty mapping.
func mapping(path string) (*yaml.Node, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return &yaml.Node{Kind: yaml.MappingNode}, nil
	}
	return doc.Content[0], nil
}

// member returns the value of a key; nil if a mapping has none.
func member(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// flow returns a value as one line of YAML, without its comments; "" if it cannot be written.
func flow(n *yaml.Node) string {
	var plain func(*yaml.Node) *yaml.Node
	plain = func(n *yaml.Node) *yaml.Node {
		c := *n
		c.HeadComment, c.LineComment, c.FootComment = "", "", ""
		if c.Kind == yaml.MappingNode || c.Kind == yaml.SequenceNode {
			c.Style = yaml.FlowStyle
		}
		c.Content = nil
		for _, part := range n.Content {
			c.Content = append(c.Content, plain(part))
		}
		return &c
	}
	text, err := yaml.Marshal(plain(n))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// paste returns the lines to add to gateway.yaml for a key with these files.
func (k *keygen) paste(h *handedOver, files []handedFile) *paste {
	p := &paste{}
	header := "signing_keys:\n"
	if k.known != nil && member(k.known.top, "signing_keys") != nil {
		header = ""
	}
	holds := "secret: {file: " + plainYAML(k.place(files[0].Name)) + "}"
	if len(files) > 1 {
		holds = "public_key: " + plainYAML(k.place(files[1].Name))
	}
	p.Top = fmt.Sprintf("%s  %s:\n    principal: %s\n    %s   # the gateway's user must be able to read it\n    not_before: %s\n    not_after: %s\n",
		header, plainYAML(h.KeyID), plainYAML(k.partner), holds, h.NotBefore.Format(time.RFC3339), h.NotAfter.Format(time.RFC3339))

	rule := fmt.Sprintf(`{allow: "*", who: {principal: "key:%s"}}`, k.partner)
	if k.known == nil {
		p.Route = fmt.Sprintf("    callers: [key/%s]   # beside those that it has\n    rules: [%s]   # beside those that it has\n", k.partner, rule)
		return p
	}
	p.Route = fmt.Sprintf("    callers: [%s]\n", strings.Join(k.callers(), ", "))
	switch {
	case k.known.policy != "":
		p.Policy = "    - " + rule + "\n"
	case k.known.list != nil && len(k.known.list.Content) > 0:
		p.Route += fmt.Sprintf("    rules: [%s, %s]\n", strings.TrimSuffix(strings.TrimPrefix(flow(k.known.list), "["), "]"), rule)
	default:
		p.Route += fmt.Sprintf("    rules: [%s]\n", rule)
	}
	if state := k.known.config.Integrity.State; state.Word() == "" && !k.known.config.TakesSignatures() && !exists(string(state)) {
		p.Nonce = string(state)
	}
	if c := k.known.config.TLS; c.Local != nil && c.ACME == nil && len(c.Files) == 0 {
		p.Root = filepath.Join(string(c.Local.Dir), "root.pem")
		p.rooted = exists(p.Root)
	}
	return p
}

// callers returns the callers of the route, and the partner. It removes anonymous, because a route
// with that caller verifies no signature.
func (k *keygen) callers() []string {
	caller := "key/" + k.partner
	all := slices.DeleteFunc(slices.Clone(k.known.route.Callers), func(c string) bool { return c == "anonymous" })
	if !slices.Contains(all, caller) && !slices.Contains(all, "key") {
		all = append(all, caller)
	}
	return all
}

// place returns the path of a file of the folder for gateway.yaml: relative if the file is below the
// folder of gateway.yaml, and otherwise absolute.
func (k *keygen) place(name string) string {
	out, err := filepath.Abs(filepath.Join(k.out, name))
	if err != nil {
		return filepath.Join(k.out, name)
	}
	base, err := filepath.Abs(filepath.Dir(k.config))
	if err != nil || k.known == nil {
		return out
	}
	if near, err := filepath.Rel(base, out); err == nil && filepath.IsLocal(near) {
		return near
	}
	return out
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// file returns the content of signing-key.yaml: the lines for signing_keys, and the rest as comments.
func (p *paste) file(route string) string {
	text := p.Top + "# and in the route " + route + ", in place of the lines of the same names:\n"
	for line := range strings.Lines(p.Route) {
		text += "#" + line
	}
	if p.Policy != "" {
		text += "# and at the end of the policy that the route names under rules:\n#" + p.Policy
	}
	return text
}

// instructions returns the steps for the operator. ownKey means that the gateway already publishes a
// key of its own.
func (p *paste) instructions(h *handedOver, ownKey bool) string {
	where := "Add to gateway.yaml:"
	if !strings.HasPrefix(p.Top, "signing_keys:") {
		where = "Add to gateway.yaml, under the signing_keys that it has:"
	}
	text := where + "\n\n" + p.Top + "\nand in the route " + h.Route + ", in place of the lines of the same names:\n\n" + p.Route
	if p.Policy != "" {
		text += "\nand at the end of the policy that it names under rules:\n\n" + p.Policy
	}
	if h.Algorithm == string(httpsig.Ed25519) && !ownKey {
		id := h.NotBefore.Format("gateway-2006-01")
		text += fmt.Sprintf("\nThe gateway signs answers to this partner with its own key. If integrity.publish names none yet, make one:\n\n"+
			"    openssl genpkey -algorithm ed25519 -out %s.pem && chmod 600 %[1]s.pem\n\nand name it under signing_keys and at the top level:\n\n"+
			"  %[1]s: {private_key: {file: %[1]s.pem}, use: sign_response}\nintegrity: {publish: %[1]s}\n", id)
	}
	if p.Nonce != "" {
		text += "\nBefore the first start, or before a running gateway has these lines, make this file as the gateway's user. It\n" +
			"says that no signature was used before; without it signed requests are refused for a minute and a half:\n\n    touch " + shellQuote(p.Nonce) + "\n"
	}
	if p.Root != "" && !p.rooted {
		text += "\nAfter the first start, give the partner the root of the local authority:\n\n    cp " + shellQuote(p.Root) + " " + shellQuote(h.Dir) + "\n"
	}
	return text
}
