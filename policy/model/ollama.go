package model

// ollama is the dialect of Ollama's own API, beside which it serves OpenAI's.
func ollama() *Dialect {
	return &Dialect{name: "ollama", read: readModels, slashedIDs: true, checkVerb: checkMethod, refusal: errorText, localhost: true, head: thinkingHead, idle: thinkingIdle}
}
