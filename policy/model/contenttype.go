package model

import "strings"

// codeTypes are parts of media types whose content is a program to Python or Java: pickle and what stands
// on it (joblib, dill, NumPy's and PyTorch's files), and Java's serialization. A server that decodes one
// does what the sender says.
var codeTypes = [...]string{
	"pickle", "joblib", "/dill", "/x-dill", "python-serialize", "java-serialized", "python-marshal",
	"/npy", "/x-npy", "/npz", "/x-npz", "numpy", "pytorch", "/x-torch", "/torch", "/x-pt", "/x-hdf5-keras",
}

// CarriesCode reports whether a Content-Type says that the body is a serialized object that a server runs
// code to read. Parameters count too, as "type=" of multipart/related does.
func CarriesCode(contentType string) bool {
	if contentType == "" || contentType == "application/json" || contentType == "application/grpc" {
		return false
	}
	contentType = strings.ToLower(contentType)
	for _, part := range codeTypes {
		if strings.Contains(contentType, part) {
			return true
		}
	}
	return false
}

// MediaType returns the media type in a Content-Type, in lower case and without parameters.
func MediaType(contentType string) string {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.Trim(t, " \t"))
}
