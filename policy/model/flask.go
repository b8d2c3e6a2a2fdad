package model

// flask is the dialect of Python web applications. WSGI and ASGI hand an application
// the body as it arrives, so it may act before the end.
func flask() *Dialect {
	return &Dialect{name: "flask", rest: readMethod, refusal: problem}
}
