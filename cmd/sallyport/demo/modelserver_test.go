package demo_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/demo"
)

// exchange sends a raw request line and body, which client libraries would change.
func exchange(t *testing.T, addr, method, target, fields, body string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: models\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s",
		method, target, len(body), fields, body)
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

func TestModelServer(t *testing.T) {
	models := demo.NewModelServer()
	server := httptest.NewServer(models)
	defer server.Close()
	addr := server.Listener.Addr().String()

	const predict = "/v1/models/half_plus_two:predict"
	const three = `{"instances": [1.0, 2.0, 5.0]}`
	const rows = "{\n    \"predictions\": [2.5, 3.0, 4.5\n    ]\n}"
	failed := func(text string) string { return "{\n    \"error\": \"" + text + "\"\n}" }
	malformed := func(line string) string { return failed("Malformed request: " + line) }
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		want                       string // a prefix, where it ends in "..."
	}{
		{"rows", "POST", predict, three, 200, rows},
		{"columns", "POST", predict, `{"inputs": [1, 2]}`, 200, "{\n    \"outputs\": [\n        2.5,\n        3.0\n    ]\n}"},
		{"a scalar", "POST", predict, `{"inputs": 1e1}`, 200, "{\n    \"outputs\": 7.0\n}"},
		{"named rows", "POST", predict, `{"instances": [{"x": 1}, {"x": 2}]}`, 200, "{\n    \"predictions\": [2.5, 3.0\n    ]\n}"},
		{"named columns", "POST", predict, `{"inputs": {"x": [[1], [2]]}}`, 200, "{\n    \"outputs\": [\n        [\n            2.5\n        ],\n        [\n            3.0\n        ]\n    ]\n}"},
		{"rows of rows", "POST", predict, `{"instances": [[1, 2], [3, 4]]}`, 200, "{\n    \"predictions\": [[2.5, 3.0], [3.5, 4.0]\n    ]\n}"},
		{"numbers that JSON lacks", "POST", predict, `{"instances": [NaN, Infinity, -Infinity, -Inf]}`, 200, "{\n    \"predictions\": [NaN, Infinity, -Infinity, -Infinity\n    ]\n}"},
		{"nine digits where six do not do", "POST", predict, `{"instances": [0.2, 1.23456789, 2e10]}`, 200, "{\n    \"predictions\": [2.1, 2.61728382, 1e+10\n    ]\n}"},
		{"the signature by name", "POST", predict, `{"signature_name": "serving_default", "instances": [1]}`, 200, "{\n    \"predictions\": [2.5\n    ]\n}"},
		{"a version", "POST", "/v1/models/half_plus_two/versions/123:predict", three, 200, rows},
		{"a version with zeros", "POST", "/v1/models/half_plus_two/versions/00000123:predict", three, 200, rows},
		{"a label", "POST", "/v1/models/half_plus_two/labels/stable:predict", three, 200, rows},
		{"fixed parts in any case", "POST", "/V1/MODELS/half_plus_two:predict", three, 200, rows},
		{"an encoded name", "POST", "/v1/models/half%5Fplus_two:predict", three, 200, rows},
		{"an authority in the path", "POST", "//x/v1/models/half_plus_two:predict", three, 200, rows},
		{"an absolute target", "POST", "http://x/v1/models/half_plus_two:predict", three, 200, rows},

		{"the verb in another case", "POST", "/v1/models/half_plus_two:PREDICT", three, 400, malformed("POST /v1/models/half_plus_two:PREDICT")},
		{"a query", "POST", predict + "?x=1", three, 400, malformed("POST " + predict + "?x=1")},
		{"the wrong method", "GET", predict, "", 400, malformed("GET " + predict)},
		{"an unknown method", "DELETE", "/v1/models/half_plus_two", "", 400, malformed("DELETE /v1/models/half_plus_two")},
		{"an unknown model", "POST", "/v1/models/secret:predict", three, 404, failed("Servable not found for request: Latest(secret)")},
		{"an unknown version", "POST", "/v1/models/half_plus_two/versions/7:predict", three, 404, failed("Servable not found for request: Specific(half_plus_two, 7)")},
		{"an unknown label", "POST", "/v1/models/half_plus_two/labels/canary:predict", three, 400, failed("Unrecognized servable version label: canary")},
		{"a version out of range", "POST", "/v1/models/half_plus_two/versions/99999999999999999999:predict", three, 400, failed("Failed to convert version: 99999999999999999999 to numeric.")},
		{"another verb", "POST", "/v1/models/half_plus_two:classify", `{"examples": [{"x": 1}]}`, 400, failed("Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict")},
		{"another signature", "POST", predict, `{"signature_name": "s", "instances": [1]}`, 400, failed(`Serving signature name: \"s\" not found in signature def`)},
		{"a signature that is no string", "POST", predict, `{"signature_name": 1, "instances": [1]}`, 400, "{\n    \"error\": \"JSON Value: {\\n    \\\"instances\\\"..."},

		{"an empty body", "POST", predict, "", 400, failed("JSON Parse error: The document is empty")},
		{"no JSON", "POST", predict, "x", 400, "{\n    \"error\": \"JSON Parse error: Invalid value. at offset: ..."},
		{"two documents", "POST", predict, three + "{}", 400, "{\n    \"error\": \"JSON Parse error: The document root must not be followed by other values. at offset: ..."},
		{"no object", "POST", predict, "[1]", 400, failed(`JSON Value: [\n    1\n] Is not object`)},
		{"no tensor", "POST", predict, "{}", 400, failed("Missing 'inputs' or 'instances' key")},
		{"both formats", "POST", predict, `{"inputs": 1, "instances": [1]}`, 400, "{\n    \"error\": \"JSON Value: {..."},
		{"no list", "POST", predict, `{"instances": 1}`, 400, "{\n    \"error\": \"JSON Value: {..."},
		{"no rows", "POST", predict, `{"instances": []}`, 400, "{\n    \"error\": \"JSON Value: {..."},
		{"rows of two sizes", "POST", predict, `{"instances": [[1], [1, 2]]}`, 400, failed("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 1 but got: 2")},
		{"rows of two shapes", "POST", predict, `{"instances": [[[1], [1]], [[1, 2]]]}`, 400, failed("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2,1] but got: [1,2]")},
		{"a ragged list", "POST", predict, `{"inputs": [[1], [1, 2]]}`, 400, failed("Encountered list at unexpected size: 2 at level: 1 expected size: 1")},
		{"a list too deep", "POST", predict, `{"inputs": [1, [2]]}`, 400, failed("Encountered list at unexpected level: 1 expected < 1")},
		{"a list not deep enough", "POST", predict, `{"inputs": [[1], 2]}`, 400, failed("JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2")},
		{"a string for a number", "POST", predict, `{"inputs": ["1"]}`, 400, failed(`JSON Value: \"1\" Type: String is not of expected type: float`)},
		{"a number that no float holds", "POST", predict, `{"inputs": [16777217]}`, 400, failed("Cannot convert JSON value: 16777217 to float without loss of precision.")},
		{"rows then values", "POST", predict, `{"instances": [{"x": 1}, 2]}`, 400, failed("Expecting object but got list at item 1 of input list")},
		{"values then rows", "POST", predict, `{"instances": [1, {"x": 2}]}`, 400, failed("Expecting value/list but got object at item 1 of input list")},
		{"another input", "POST", predict, `{"instances": [{"y": 1}]}`, 400, "{\n    \"error\": \"Failed to process element: 0 of 'instances' list. JSON object: ..."},
		{"no named input", "POST", predict, `{"inputs": {"y": 1}}`, 400, failed("Missing named input: x in 'inputs' object.")},

		{"status", "GET", "/v1/models/half_plus_two", "", 200, "{\n \"model_version_status\": [\n  {\n   \"version\": \"123\",\n   \"state\": \"AVAILABLE\",..."},
		{"status of a version", "GET", "/v1/models/half_plus_two/versions/123", "", 200, "{\n \"model_version_status\"..."},
		{"metadata in another case is status", "GET", "/v1/models/half_plus_two/METADATA", "", 200, "{\n \"model_version_status\"..."},
		{"status of an unknown model", "GET", "/v1/models/secret", "", 404, failed("Could not find any versions of model secret")},
		{"status of an unknown version", "GET", "/v1/models/half_plus_two/versions/7", "", 404, failed("Could not find version 7 of model half_plus_two")},
		{"a query is part of the name", "GET", "/v1/models/half_plus_two?x", "", 404, failed("Could not find any versions of model half_plus_two?x")},
		{"no model", "GET", "/v1/models", "", 400, failed("Missing model name in request.")},
		{"metadata", "GET", "/v1/models/half_plus_two/metadata", "", 200, "{\n\"model_spec\":{\n \"name\": \"half_plus_two\",\n..."},
		{"metadata of an unknown model", "GET", "/v1/models/secret/metadata", "", 404, failed("Servable not found for request: Latest(secret)")},

		{"another path", "GET", "/", "", 404, "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>..."},
		{"dot segments are not resolved", "POST", "/x/../v1/models/half_plus_two:predict", three, 404, "<HTML>..."},
		{"OPTIONS without an origin", "OPTIONS", predict, "", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, header, got := exchange(t, addr, c.method, c.target, "", c.body)
			if status != c.status {
				t.Errorf("status: got %d, want %d", status, c.status)
			}
			want, open := strings.CutSuffix(c.want, "...")
			if open && !strings.HasPrefix(got, want) || !open && got != want {
				t.Errorf("body: got %q, want %q", got, c.want)
			}
			if kind := header.Get("Content-Type"); strings.HasPrefix(got, "{") && kind != "application/json" {
				t.Errorf("Content-Type: got %q, want application/json", kind)
			}
		})
	}

	before := models.Served()
	if status, _, _ := exchange(t, addr, "OPTIONS", predict, "Origin: https://demo.example.com\r\n", ""); status != 200 {
		t.Errorf("OPTIONS with an origin: got %d, want 200", status)
	}
	if got := models.Served() - before; got != 1 {
		t.Errorf("requests counted: got %d, want 1", got)
	}
}
