// Package demo shows the gateway at work on a machine that has only Go: can a
// model server without TLS and without authentication be protected by one file?
//
// It runs, in one process and on loopback only, an OpenID issuer, a model server
// that speaks TensorFlow Serving's REST API, and the gateway in front of it, which
// it starts from a written gateway.yaml as `sallyport serve` would. [Issuer] and
// [ModelServer] also serve tests as counterparts.
package demo
