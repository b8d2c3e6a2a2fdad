package proxy_test

// probesOfPaths are about path forms that servers read in different ways. The route /kept keeps them,
// and /merged replaces several slashes by one.
func probesOfPaths() []probe {
	refused := func(id, path string) probe {
		return probe{id: id, section: "3986 3.3", raw: "GET " + path + " HTTP/1.1\r\n{h}\r\n", want: "400 ambiguous_path"}
	}
	passes := func(id, path, upstream string) probe {
		return probe{id: id, section: "3986 3.3", raw: "GET " + path + " HTTP/1.1\r\n{h}\r\n", want: "200", end: stays, sees: "GET " + upstream + " HTTP/1.1\r\n{h}\r\n"}
	}
	return []probe{
		refused("an escaped slash", "/p%2Fq"),
		refused("an escaped percent sign", "/100%25.ipynb"),
		refused("an escaped question mark", "/p%3Fq"),
		refused("an escaped hash", "/p%23q"),
		refused("a semicolon", "/p;v=1"),
		refused("two slashes", "/p//q"),
		refused("two slashes first", "//p"),
		refused("an escaped dot segment", "/p/%2e%2e/q"),
		refused("an escaped backslash", "/p%5Cq"),
		refused("a percent sign at the end", "/p%"),
		refused("a parameter behind a dot segment", "/read/..;/p"),
		passes("an escaped slash that the route keeps", "/kept/p%2Fq", "/kept/p%2Fq"),
		passes("an escaped percent sign that the route keeps", "/kept/100%25.ipynb", "/kept/100%25.ipynb"),
		passes("an escaped question mark that the route keeps", "/kept/p%3Fq", "/kept/p%3Fq"),
		passes("an escaped hash that the route keeps", "/kept/p%23q", "/kept/p%23q"),
		passes("a semicolon that the route keeps", "/kept/p;v=1", "/kept/p;v=1"),
		passes("two slashes that the route keeps", "/kept/p//q", "/kept/p//q"),
		passes("two slashes that the route merges", "/merged/p//q", "/merged/p/q"),
		refused("a kept form that leads to another route", "/kept/..%2Fread"),
		passes("escapes of letters", "/%70%7E", "/p~"),
		passes("escapes in small letters", "/caf%c3%a9", "/caf%C3%A9"),
		passes("characters that browsers send raw", "/p[1]|{2}^\"3\"`?q=[1]|{2}^\"3\"`", "/p%5B1%5D%7C%7B2%7D%5E%223%22%60?q=%5B1%5D%7C%7B2%7D%5E%223%22%60"),
		passes("a backslash in the query", "/p?q=a\\b", "/p?q=a%5Cb"),
		passes("an empty query", "/p?", "/p?"),
		passes("a query with slashes and question marks", "/p?q=//a/../b?c", "/p?q=//a/../b?c"),
	}
}

// probesOfTrust are about fields that only the gateway may set.
func probesOfTrust() []probe {
	refused := func(id, line string) probe {
		return probe{id: id, section: "9110 7.6", raw: "GET /p HTTP/1.1\r\n{h}" + line + "\r\n\r\n", want: "400 protected_field"}
	}
	dropped := func(id, line string) probe {
		return probe{id: id, section: "9110 7.6", raw: "GET /p HTTP/1.1\r\n{h}" + line + "\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}\r\n"}
	}
	return []probe{
		refused("an identity", "X-Sallyport-Principal: root"),
		refused("an identity under another spelling", "X_Sallyport_Principal: root"),
		refused("another method in a field", "X-HTTP-Method-Override: DELETE"),
		refused("a cookie under another spelling", "Cookie_: a=b"),
		refused("a client address under another spelling", "X_Forwarded_For: 10.0.0.1"),
		dropped("a client address", "X-Forwarded-For: 10.0.0.1"),
		dropped("another host in a field", "X-Forwarded-Host: other.test"),
		dropped("another target in a field", "X-Original-URL: /read"),
		dropped("a proxy for the server's own requests", "Proxy: http://other.test"),
		dropped("fields of the connection", "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers"),
		dropped("a credential for a proxy", "Proxy-Authorization: Basic YTpi"),
		{id: "a name with an underscore", section: "9110 5.1", raw: "GET /p HTTP/1.1\r\n{h}X_Test: value\r\n\r\n", want: "200", end: stays, sees: "GET /p HTTP/1.1\r\n{h}x_test: value\r\n\r\n"},
		{id: "no credential", section: "9110 11.6.1", raw: "GET /p HTTP/1.1\r\n" + probeHost + "\r\n", want: "401 no_credential", end: stays, answer: "Www-Authenticate: Bearer"},
		{id: "two credentials", section: "9110 5.3", raw: "GET /p HTTP/1.1\r\n{h}" + probeToken + "\r\n", want: "400 bad_field"},
	}
}
