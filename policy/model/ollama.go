package model

// ollama is the dialect of Ollama's own API.
func ollama() *Dialect {
	return &Dialect{name: "ollama", read: readMethod, checkVerb: checkMethod, refusal: errorText, localhost: true, head: thinkingHead, idle: thinkingIdle}
}
