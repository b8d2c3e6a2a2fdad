package model

import (
	"strconv"
	"time"
)

// Language models may think for minutes before they begin to answer.
const (
	thinkingHead = 10 * time.Minute
	thinkingIdle = 5 * time.Minute
)

// openAI is the dialect of servers with OpenAI's API, such as vLLM.
func openAI() *Dialect {
	return &Dialect{name: "openai", read: readMethod, checkVerb: checkMethod, refusal: errorObject, head: thinkingHead, idle: thinkingIdle}
}

// errorObject writes a refusal as OpenAI's error object, from which its client
// libraries take message, type, param and code.
func errorObject(_ int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/json", []byte(`{"error":{"message":` + strconv.Quote(text) + `,"type":"gateway_error","param":null,"code":` + strconv.Quote(reason) + "}" + tail(reason, requestID))
}
