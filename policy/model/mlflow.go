package model

import "strconv"

// mlflow is the dialect of `mlflow models serve`, whose servers have one model (mlflow/pyfunc/scoring_server).
func mlflow() *Dialect { return newMLflow("", nil) }

func newMLflow(name string, _ []call) *Dialect {
	return &Dialect{
		name: "mlflow", refusal: mlflowError, namesModels: name != "", one: newMLflow,
		verbs: []string{"predict", "health", "version"}, drops: steering[:], plan: planMLflow, tensors: true,
		rest: func(r *Request) (Reading, error) { return readOne("mlflow", mlflowEndpoints[:], r, name) },
	}
}

var mlflowEndpoints = [...]endpoint{
	{method: "POST", path: "/invocations", verb: "predict"},
	{method: "GET", path: "/ping", verb: "health", server: true},
	{method: "GET", path: "/health", verb: "health", server: true},
	{method: "GET", path: "/version", verb: "version", server: true},
}

// readOne reads a request by the endpoints of servers with one model.
func readOne(dialect string, table []endpoint, r *Request, name string) (Reading, error) {
	got, found, err := find(table, r)
	if !found {
		return Reading{}, unknownPath(dialect, r)
	}
	if err == nil && !got.Call.Server {
		got.Call.Model = name
	}
	return got, err
}

// mlflowError writes a refusal as MLflow writes its own: an error code of protos/databricks.proto, and
// a message.
func mlflowError(status int, text, reason, requestID string) (contentType string, body []byte) {
	code := "INTERNAL_ERROR"
	switch status {
	case 401:
		code = "UNAUTHENTICATED"
	case 403:
		code = "PERMISSION_DENIED"
	case 404:
		code = "ENDPOINT_NOT_FOUND"
	case 429:
		code = "REQUEST_LIMIT_EXCEEDED"
	case 502, 503, 504:
		code = "TEMPORARILY_UNAVAILABLE"
	default:
		if status < 500 {
			code = "BAD_REQUEST"
		}
	}
	return "application/json", []byte(`{"error_code":` + strconv.Quote(code) + `,"message":` + strconv.Quote(text) + tail(reason, requestID))
}
