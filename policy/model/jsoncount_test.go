package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// countOf counts a body in pieces of n bytes. batch and tensor are the least limits that the body is within,
// found by trying.
func countOf(t testing.TB, dialect, path, body string, n int, fields ...message.Field) (batch, tensor int64, err error) {
	t.Helper()
	r := readingOf(t, dialect, &Request{Method: "POST", Path: path, Fields: fields})
	within := func(m Most) error {
		s := r.Counter(ScanOptions{Most: m, Inflate: 1 << 20})
		if s == nil {
			t.Fatalf("%s %s is not counted", dialect, path)
		}
		defer s.Close()
		for p := []byte(body); len(p) > 0; p = p[min(n, len(p)):] {
			if _, err := s.Write(p[:min(n, len(p))]); err != nil {
				if again := s.Check(); again == nil {
					t.Fatalf("the error of Write is not final: %v", err)
				}
				return err
			}
		}
		return s.Check()
	}
	if err := within(Most{}); err != nil {
		return 0, 0, err
	}
	least := func(of func(int64) Most) int64 {
		var much *TooMuch
		low, high := int64(1), int64(1)
		for errors.As(within(of(high)), &much) {
			low, high = high+1, high*2
			if high <= 0 {
				return 1<<63 - 1
			}
		}
		for low < high {
			mid := low + (high-low)/2
			if within(of(mid)) == nil {
				high = mid
			} else {
				low = mid + 1
			}
		}
		return low
	}
	return least(func(n int64) Most { return Most{Batch: n} }), least(func(n int64) Most { return Most{Tensor: n} }), nil
}

func contentType(t string) message.Field { return message.Field{Name: "content-type", Value: t} }

func headerLength(n int) message.Field {
	return message.Field{Name: "inference-header-content-length", Value: fmt.Sprint(n)}
}

const (
	tfPredict = "/v1/models/m:predict"
	v2Infer   = "/v2/models/m/infer"
)

func TestBatchInJSONIsCounted(t *testing.T) {
	thousand := strings.TrimSuffix(strings.Repeat("0,", 1000), ",")
	for _, c := range []struct {
		dialect, path, body string
		batch, tensor       int64
	}{
		{"tensorflow", tfPredict, `{"instances":[[1,2],[3,4],[5,6]]}`, 3, 19},
		{"tensorflow", tfPredict, `{"instances":[{"a":[1,2,3,4],"b":1}]}`, 1, 23},
		{"tensorflow", tfPredict, `{"inst\u0061nces":[1,2,3]}`, 3, 7},
		{"tensorflow", tfPredict, `{"instances":[1,2,3],"instances":[1]}`, 3, 7},
		{"tensorflow", tfPredict, `{"instances":[1],"instances":[1,2,3]}`, 3, 7},
		{"tensorflow", tfPredict, `{"instances":[NaN,-Infinity,Infinity]}`, 3, 24},
		{"tensorflow", tfPredict, `{"instances":[]}`, 1, 2},
		{"tensorflow", tfPredict, `{"inputs":{"a":[[1],[2]],"b":[1,2,3]}}`, 3, 9},
		{"tensorflow", tfPredict, `{"inputs":{"a":{"b64":"` + strings.Repeat("x", 100) + `"},"b":7}}`, 1, 110},
		{"tensorflow", tfPredict, `{"inputs":[[1,2,3,4],[5,6,7,8]]}`, 2, 21},
		{"tensorflow", tfPredict, `{"inputs":7}`, 1, 1},
		{"tensorflow", tfPredict, `{"x":{"instances":[1,2,3]},"y":[{"inputs":[1,2]}]}`, 1, 1},
		{"tensorflow", tfPredict, `{"x":"\"instances\":[1,2,3]","instances":[1]}`, 1, 3},
		{"tensorflow", "/v1/models/m:classify", `{"examples":[{"x":[1,2,3]},{"x":[4]}],"context":{}}`, 2, 25},
		{"tensorflow", "/v1/models/m:regress", `{"examples":[{},{},{}]}`, 3, 10},
		{"v2", tfPredict, `{"instances":[1,2,3]}`, 3, 7},
		{"v2", "/v1/models/m:explain", `{"instances":[1,2,3]}`, 3, 7},

		{"triton", v2Infer, `{"inputs":[{"name":"a","shape":[4,2],"datatype":"FP32","data":[1,2,3,4,5,6,7,8]},{"name":"b","shape":[9],"datatype":"FP32","data":[]}]}`, 9, 17},
		{"triton", v2Infer, `{"inputs":[{"data":[[1,2],[3,4]],"shape":[2,2]}]}`, 2, 13},
		{"v2", v2Infer, `{"inputs":[{"shape":[1],"datatype":"BYTES","data":[` + thousand + `]}]}`, 1000, 2001}, // StringCodec of MLServer takes no look at the shape
		{"v2", v2Infer, `{"inputs":[{"data":[` + thousand + `],"shape":[1],"datatype":"BYTES"}]}`, 1000, 2001},
		{"v2", v2Infer, `{"inputs":[{"data":[[[` + thousand + `]]],"shape":[1,100]}]}`, 10, 2005},
		{"v2", v2Infer, `{"inputs":[{"data":[1],"shape":[1000]}]}`, 1000, 3},
		{"v2", v2Infer, `{"inputs":[{"data":[1,2,3,4,5,6],"shape":[-1,2]}]}`, 3, 13},
		{"v2", v2Infer, `{"inputs":[{"data":[1,2],"shape":[1,0]}]}`, 2, 5},
		{"v2", v2Infer, `{"inputs":[{"data":[1,2,3]}]}`, 3, 7},
		{"v2", v2Infer, `{"inputs":[{"data":[{"a":[1,2,3]},{"b":[4,5]}],"shape":[1]}]}`, 2, 27},
		{"v2", v2Infer, `{"inputs":[{"data":{"a":[1,2,3]},"shape":[1]}]}`, 1, 13},
		{"v2", v2Infer, `{"inputs":[{"data":[[],[ ],[[]],{"a":[]}],"shape":[1],"datatype":"BYTES"}]}`, 4, 22},
		{"v2", v2Infer, `{"inputs":[{"data":[],"shape":[1]}]}`, 1, 2},
		{"v2", v2Infer, `{"inputs":[{"data":"x","shape":[]}]}`, 1, 3},
		{"v2", v2Infer, `{"inputs":[{"shape":[99999999999999999999]}]}`, 1<<63 - 1, 1},
		{"v2", v2Infer, `{"inputs":[{"shape":[3,4294967296,4294967296,4294967296]}]}`, 3, 1},
		{"v2", v2Infer, `{"outputs":[{"shape":[1000]}],"inputs":[]}`, 1, 1},
		{"triton", "/v2/models/m/generate", `{"` + strings.Repeat("x", 5000) + `":["a","b"]}`, 2, 9},
		{"triton", "/v2/models/m/generate", `{"text_input":["a","b","c"],"parameters":{"x":[1,2,3,4]}}`, 4, 13},

		{"mlflow", "/invocations", `{"dataframe_split":{"columns":["a","b"],"data":[[1,2],[3,4],[5,6]]}}`, 3, 19},
		{"mlflow", "/invocations", `{"dataframe_split":{"columns":["a"],"index":[` + thousand + `],"data":0}}`, 1000, 2001}, // pandas repeats the 0
		{"mlflow", "/invocations", `{"dataframe_split":{"data":{"a":[1,2,3]}}}`, 3, 7},
		{"mlflow", "/invocations", `{"dataframe_records":[{"a":1},{"a":2}]}`, 2, 17},
		{"mlflow", "/invocations", `{"instances":[1,2],"params":{"data":[1,2,3]}}`, 2, 5},
		{"mlflow", "/invocations", `{"inputs":{"a":[1,2],"b":[1,2,3]}}`, 3, 7},

		{"openai", "/v1/embeddings", `{"input":["a","b","c"]}`, 3, 13},
		{"openai", "/v1/embeddings", `{"input":"a"}`, 1, 3},
		{"openai", "/v1/embeddings", `{"input":[1,2,3,4]}`, 1, 9},
		{"openai", "/v1/embeddings", `{"input":[[1,2],[3]]}`, 2, 11},
		{"openai", "/v1/embeddings", `{"input":[1,"a","b"]}`, 3, 11},
		{"openai", "/v1/completions", `{"prompt":["a","b"],"n":3}`, 6, 9},
		{"openai", "/v1/completions", `{"n":3,"best_of":5,"prompt":["a","b"]}`, 10, 9},
		{"openai", "/v1/completions", `{"prompt_embeds":["a","b","c"]}`, 3, 13},
		{"openai", "/v1/completions", `{"n":null,"prompt":"a"}`, 1, 3},
		{"openai", "/v1/completions", `{"n":0,"prompt":"a"}`, 1, 3},
		{"openai", "/v1/completions", `{"n":99999999999999999999,"prompt":["a","b"]}`, 1<<63 - 1, 9},
		{"openai", "/v1/chat/completions", `{"n":16,"messages":[{"content":"a","n":99},{},{}]}`, 16, 1},
		{"openai", "/inference/v1/generate", `{"sampling_params":{"n":7},"token_ids":[1,2]}`, 7, 1},
		{"openai", "/v1/rerank", `{"query":"q","documents":["a","b"]}`, 2, 9},
		{"openai", "/v1/responses", `{"input":[{},{},{}]}`, 1, 1}, // a conversation
		{"ollama", "/api/embed", `{"input":["a","b"]}`, 2, 9},
		{"ollama", "/api/embed", `{"INPUT":["a","b"]}`, 2, 9},
		{"ollama", "/api/embed", `{"input":["a"],"Input":["a","b"]}`, 2, 9},
	} {
		for _, n := range []int{1, 7, 1 << 20} {
			batch, tensor, err := countOf(t, c.dialect, c.path, c.body, n)
			if batch != c.batch || tensor != c.tensor || err != nil {
				t.Errorf("%s %.90s in pieces of %d: batch %d, input of %d bytes, %v; want %d, %d", c.dialect, c.body, n, batch, tensor, err, c.batch, c.tensor)
			}
		}
	}
}

func TestBodyThatCannotBeCountedIsRefused(t *testing.T) {
	many := `{"inputs":[` + strings.TrimSuffix(strings.Repeat(`{"shape":[1],"parameters":{"binary_data_size":1}},`, 257), ",") + `]}`
	for _, c := range []struct {
		dialect, path, body string
		err                 error
		fields              []message.Field
	}{
		{"tensorflow", tfPredict, `{"instances":[1,2`, nil, nil},
		{"tensorflow", tfPredict, `[1,2]`, nil, nil},
		{"tensorflow", tfPredict, "{\"instances\":[1\x00]}", nil, nil},
		{"tensorflow", tfPredict, `{"instances":[nan]}`, nil, nil},
		{"v2", v2Infer, `{"inputs":{"shape":[1]}}`, errInputForm, nil},
		{"v2", v2Infer, `{"inputs":[7]}`, errInputForm, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":7}]}`, errInputShape, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":["1000"]}]}`, errInputShape, nil}, // pydantic takes all of these
		{"v2", v2Infer, `{"inputs":[{"shape":[1e3]}]}`, errInputShape, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[1000.0]}]}`, errInputShape, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[true]}]}`, errInputShape, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[-Infinity]}]}`, errInputShape, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[[1000]]}]}`, errInputShape, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[1],"sh\u0061pe":[1000]}]}`, errInputTwice, nil},
		{"v2", v2Infer, `{"inputs":[{"data":[1],"data":[1,2]}]}`, errInputTwice, nil},
		{"v2", v2Infer, `{"inputs":[{"parameters":{"binary_data_size":5000,"binary_data_size":4}}]}`, errInputTwice, nil},
		{"v2", v2Infer, `{"inputs":[{"data":[1],"parameters":{"binary_data_size":4}}]}`, errInputBoth, nil},
		{"v2", v2Infer, `{"inputs":[{"parameters":{"binary_data_size":"4"}}]}`, errInputBinary, nil},
		{"v2", v2Infer, `{"inputs":[{"parameters":{"binary_data_size":-4}}]}`, errInputBinary, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[1,1000],"datatype":"BYTES","parameters":{"binary_data_size":9}}],"inputs":[{"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}`, errInputsTwice, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[1],"Parameters":{"binary_data_size":4}}]}`, errInputKey, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[1],"parameters":{"binary_data_Size":4}}]}`, errInputKey, nil},
		{"v2", v2Infer, `{"inputs":[{"shape":[1],"parameters":{"binary_data_size":0}},{"shape":[1],"parameters":{"binary_data_size":4}}]}abc`, errBinaryMore, []message.Field{headerLength(112)}},
		{"v2", v2Infer, `{"inputs":[{"shape":[1],"parameters":{"binary_data_size":4}}]}`, errBinaryMore, []message.Field{headerLength(62)}},
		{"v2", v2Infer, many, errManyInputs, nil},
		{"v2", v2Infer, `{}`, errCountType, []message.Field{contentType("application/cloudevents+json")}},
		{"v2", v2Infer, `{}`, errBinaryLength, []message.Field{headerLength(0)}},
		{"v2", v2Infer, `{}`, errBinaryLength, []message.Field{headerLength(3)}},
		{"v2", v2Infer, `{} `, errBinaryLength, []message.Field{headerLength(2), headerLength(3)}},
		{"v2", v2Infer, `{}x`, errBinaryMore, []message.Field{headerLength(2)}},
		{"mlflow", "/invocations", "a,b\n1,2\n", errCountType, []message.Field{contentType("text/csv")}},
		{"openai", "/v1/completions", `{"n":"1000"}`, errCountNumber, nil},
		{"openai", "/v1/completions", `{"n":1e3}`, errCountNumber, nil},
		{"openai", "/v1/completions", `{"n":[1000]}`, errCountNumber, nil},
		{"openai", "/v1/completions", `{"n":-1}`, errCountNumber, nil},
		{"openai", "/v1/completions", `{"n":true}`, errCountNumber, nil},
	} {
		for _, n := range []int{1, 1 << 20} {
			_, _, err := countOf(t, c.dialect, c.path, c.body, n, c.fields...)
			if !errors.Is(err, ErrUncounted) || errors.Is(err, ErrBody) || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("%s %.80q in pieces of %d: %v; want %v", c.dialect, c.body, n, err, c.err)
			}
		}
	}
}

// Binary content stands behind the object, and may hold more strings than the shape says.
func TestBinaryContentIsCounted(t *testing.T) {
	strs := strings.Repeat("\x01\x00\x00\x00x", 1000)
	for _, c := range []struct {
		object, content string
		batch, tensor   int64
	}{
		{`{"inputs":[{"shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}}]}`, strings.Repeat("x", 16), 2, 16},
		{`{"inputs":[{"shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":16}}]}`, strings.Repeat("x", 16), 2, 16},
		{`{"inputs":[{"parameters":{"binary_data_size":5000},"datatype":"BYTES","shape":[1]}]}`, strs, 1000, 5000},
		{`{"inputs":[{"parameters":{"binary_data_size":4},"datatype":"INT32","shape":[1]},{"parameters":{"binary_data_size":5000},"datatype":"BYTES","shape":[1,10]}]}`, "abcd" + strs, 100, 5000},
		{`{"inputs":[{"shape":[1],"parameters":{"binary_data_size":4}},{"shape":[1],"parameters":{"binary_data_size":0}}]}`, "abcd", 4, 4},
		{`{"inputs":[{"shape":[3],"datatype":"X","parameters":{"binary_data_size":7}}]}`, "1234567", 7, 7},
	} {
		for _, n := range []int{1, 7, 1 << 20} {
			batch, tensor, err := countOf(t, "triton", v2Infer, c.object+c.content, n, headerLength(len(c.object)))
			if batch != c.batch || tensor != c.tensor || err != nil {
				t.Errorf("%s in pieces of %d: batch %d, input of %d bytes, %v; want %d, %d", c.object, n, batch, tensor, err, c.batch, c.tensor)
			}
		}
	}
}

func TestCompressedBodyIsCounted(t *testing.T) {
	body := gzipped(t, `{"instances":[1,2,3]}`)
	r := readingOf(t, "tensorflow", &Request{Method: "POST", Path: tfPredict})
	for most, refused := range map[int64]bool{2: true, 3: false} {
		s := r.Counter(ScanOptions{Most: Most{Batch: most}, Inflate: 1 << 20, Encoding: "gzip"})
		_, err := s.Write(body)
		if err == nil {
			err = s.Check()
		}
		s.Close()
		var much *TooMuch
		if errors.As(err, &much) != refused || !refused && err != nil {
			t.Errorf("at most %d: %v", most, err)
		}
	}
}

// A large array is refused at the first entry too many.
func TestCountEndsAtTheLimit(t *testing.T) {
	r := readingOf(t, "tensorflow", &Request{Method: "POST", Path: tfPredict})
	s := r.Counter(ScanOptions{Most: Most{Batch: 2, Tensor: 100}})
	if _, err := s.Write([]byte(`{"instances":[1,2,`)); err != nil {
		t.Fatal(err)
	}
	var much *TooMuch
	if _, err := s.Write([]byte(`3`)); !errors.As(err, &much) || much.Has != 3 || much.Most != 2 {
		t.Errorf("got %v", err)
	}
	s = r.Counter(ScanOptions{Most: Most{Tensor: 100}})
	if _, err := s.Write([]byte(`{"instances":["` + strings.Repeat("x", 101))); !errors.As(err, &much) || !much.Tensor {
		t.Errorf("got %v", err)
	}
}

func TestCounterAllocatesNothingPerPiece(t *testing.T) {
	r := readingOf(t, "tensorflow", &Request{Method: "POST", Path: tfPredict})
	s := r.Counter(ScanOptions{Most: Most{Batch: 1 << 40, Tensor: 1 << 40}})
	_, _ = s.Write([]byte(`{"instances":[`))
	piece := []byte(`{"a":[1,2,3],"b":"x"},`)
	if n := testing.AllocsPerRun(100, func() { _, _ = s.Write(piece) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzCountJSON compares the count with that of a body which encoding/json has read.
func FuzzCountJSON(f *testing.F) {
	f.Add([]byte(`{"instances":[1,[2],{"a":[3]}],"inputs":{"a":[1,2],"b":3}}`))
	f.Add([]byte(`{"inputs":[{"shape":[2,3],"data":[[1,2],[3,"x"],{"a":[1]}]}]}`))
	f.Add([]byte(`{"inputs":[{"shape":[1],"data":[[],{},[[]]]}]}`))
	f.Add([]byte(`{"prompt":["a",1],"n":2,"sampling_params":{"n":3},"input":[[1]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return
		}
		for _, c := range []struct{ dialect, path string }{{"tensorflow", tfPredict}, {"v2", v2Infer}, {"openai", "/v1/completions"}} {
			least, known := decodedBatch(c.path, object)
			for _, n := range []int{1, 5, len(body) + 1} {
				batch, _, err := countOf(t, c.dialect, c.path, string(body), n)
				if known && err == nil && batch < least {
					t.Errorf("%s %q: batch %d; want %d or more", c.dialect, body, batch, least)
				}
			}
		}
	})
}

// decodedBatch is the least batch that a server computes which reads an object as encoding/json does.
func decodedBatch(path string, object map[string]json.RawMessage) (least int64, known bool) {
	length := func(v json.RawMessage) int64 {
		var list []json.RawMessage
		_ = json.Unmarshal(v, &list)
		return int64(len(list))
	}
	switch path {
	case tfPredict:
		least = max(length(object["instances"]), length(object["inputs"]))
		var named map[string]json.RawMessage
		_ = json.Unmarshal(object["inputs"], &named)
		for _, v := range named {
			least = max(least, length(v))
		}
	case v2Infer:
		var inputs []struct {
			Shape []int64 `json:"shape"`
			Data  []any   `json:"data"`
		}
		if json.Unmarshal(object["inputs"], &inputs) != nil {
			return 0, false
		}
		for _, in := range inputs {
			if len(in.Shape) > 0 {
				least = max(least, in.Shape[0])
			}
			if len(in.Shape) <= 1 {
				least = max(least, int64(len(in.Data)))
			}
		}
	default:
		var n int64
		_ = json.Unmarshal(object["n"], &n)
		var texts []any
		_ = json.Unmarshal(object["prompt"], &texts)
		var strs int64
		for _, v := range texts {
			if _, number := v.(float64); !number {
				strs++
			}
		}
		if least = max(strs, 1); n > 1 && n < 1<<20 {
			least *= n
		}
	}
	return least, true
}
