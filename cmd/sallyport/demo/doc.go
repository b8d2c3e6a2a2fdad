// Package demo demonstrates the gateway without any other software.
//
// It runs an OpenID issuer, a model server with TensorFlow Serving's REST API, and the
// gateway in front of it, all in one process and only on loopback. It writes a
// gateway.yaml and starts the gateway from it, like `sallyport serve`. Tests use
// [Issuer] and [ModelServer] too.
package demo
