package model

import (
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/message"
)

// Language models may think for minutes before they begin to answer.
const (
	thinkingHead = 10 * time.Minute
	thinkingIdle = 5 * time.Minute
)

// openAI is the dialect of servers with OpenAI's API, such as vLLM. A request names the
// model in the member "model" of its JSON body. The requests for one model's description
// name it in the path.
func openAI() *Dialect {
	return &Dialect{
		name: "openai", read: readOpenAI, checkVerb: checkMethod, refusal: errorObject, namesModels: true,
		scanner:   func(*message.Head) Scanner { return &objectScanner{keys: []string{"model"}, canon: canonicalID} },
		canonical: canonicalID, head: thinkingHead, idle: thinkingIdle,
	}
}

// readOpenAI reads the model from GET /v1/models/ID.
func readOpenAI(h *message.Head) Call {
	c := readMethod(h)
	if c.Verb != "get" && c.Verb != "head" {
		return c
	}
	if _, id, ok := strings.Cut(h.Path, "/v1/models/"); ok && !strings.ContainsAny(id, "/%") {
		c.Model = id
	}
	return c
}

// errorObject writes a refusal as OpenAI's error object, from which its client
// libraries take message, type, param and code.
func errorObject(_ int, text, reason, requestID string) (contentType string, body []byte) {
	return "application/json", []byte(`{"error":{"message":` + strconv.Quote(text) + `,"type":"gateway_error","param":null,"code":` + strconv.Quote(reason) + "}" + tail(reason, requestID))
}
