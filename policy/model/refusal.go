package model

import "strconv"

// problem writes a refusal as problem details (RFC 9457). The members reason and
// request_id are extensions, which section 3.2 permits.
func problem(status int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/problem+json", []byte(`{"title":` + strconv.Quote(text) + `,"status":` + strconv.Itoa(status) + tail(reason, requestID))
}

// errorText writes a refusal as an object whose member error is the text, as
// TensorFlow Serving, Triton and Ollama do.
func errorText(_ int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/json", []byte(`{"error":` + strconv.Quote(text) + tail(reason, requestID))
}

// errorCode writes a refusal as TorchServe does.
func errorCode(status int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/json", []byte(`{"code":` + strconv.Itoa(status) + `,"type":"GatewayException","message":` + strconv.Quote(text) + tail(reason, requestID))
}

// tail ends the object in every format: the reason and the request id have the same
// place for all dialects.
func tail(reason, requestID string) string {
	return `,"reason":` + strconv.Quote(reason) + `,"request_id":` + strconv.Quote(requestID) + "}\n"
}
