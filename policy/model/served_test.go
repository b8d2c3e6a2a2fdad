package model

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sallyport/proxy/message"
)

// answered is the answer to a request, for tests of what it says.
type answered struct {
	dialect, method, path string // no method: a gRPC call
	fields                message.Fields
	status                int
	body                  []byte
}

// says returns what the answer says when it arrives in pieces of a size, and whether it is read at all.
func (a answered) says(t testing.TB, piece int) (Served, bool) {
	t.Helper()
	d, ok := ByName(a.dialect)
	if !ok {
		t.Fatal(a.dialect)
	}
	r := &Request{Method: a.method, GRPC: a.method == ""}
	r.Path, r.Query, r.HasQuery = strings.Cut(a.path, "?")
	if r.GRPC {
		r.Method = "POST"
	}
	got, err := d.Read(r)
	if err != nil {
		t.Fatalf("%s: %v", a.path, err)
	}
	s := got.ServedScanner(&message.Response{Status: a.status, Fields: a.fields})
	if s == nil {
		return Served{}, false
	}
	for p := range slices.Chunk(a.body, piece) {
		s.Write(p)
	}
	return s.End(), true
}

func ofType(contentType string) message.Fields {
	return message.Fields{{Name: "content-type", Value: contentType}}
}

// Real servers' answers say the model and the version that the servers worked on.
func TestAnswersOfRealServersSayTheirModel(t *testing.T) {
	said := map[string]int{}
	for _, x := range recorded(t) {
		file := filepath.Join("testdata/exchanges", x.name+".http")
		if strings.Contains(x.name, "/") {
			file = filepath.Join("testdata/exchanges/classic", x.name+".txt")
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		a := answered{dialect: x.dialect, method: x.head.Method, path: x.head.Target, status: 200, fields: ofType("application/json")}
		if x.grpc {
			a.method, a.fields = "", ofType("application/grpc")
		}
		if _, _, err := x.read(t); err != nil || len(x.served) == 0 {
			continue
		}
		if strings.HasSuffix(file, ".http") {
			_, answer, _ := strings.Cut(string(text), "\n<<<\n")
			head, body, _ := strings.Cut(answer, "\n\n")
			status, fields, _ := strings.Cut(head, "\n")
			for f := range strings.Lines(fields) {
				if name, value, _ := strings.Cut(f, ": "); strings.EqualFold(name, "content-type") {
					a.fields = ofType(strings.TrimSpace(value))
				}
			}
			a.status, _ = strconv.Atoi(status)
			a.body = []byte(body)
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
			switch {
			case strings.HasSuffix(file, ".http"):
			case key == "answer":
				if a.body, err = hex.DecodeString(value); err != nil {
					t.Fatal(err)
				}
			case key == "body":
				piece, err := strconv.Unquote(value)
				if err != nil {
					t.Fatal(err)
				}
				a.body = append(a.body, piece...)
			}
		}
		h := x.head
		if err := h.Settle(); err != nil {
			t.Fatal(err)
		}
		a.path = h.PathAndQuery()
		last := x.served[len(x.served)-1]
		d, _ := ByName(x.dialect)
		if last.Model, err = d.CanonicalModel(last.Model); err != nil {
			t.Fatal(err)
		}
		for _, piece := range []int{1, 7, 1 << 20} {
			got, _ := a.says(t, piece)
			if got.Model != "" && got.Model != last.Model || got.Version != "" && got.Version != last.Version {
				t.Errorf("%s in pieces of %d: the answer says %+v; the server worked on %+v", x.name, piece, got, last)
			}
			if got.Version != "" || got.Model != "" && !d.HasVersions() {
				said[x.dialect]++
			}
		}
	}
	t.Log(said)
	for _, d := range []string{"tensorflow", "triton", "v2", "openai", "ollama"} {
		if said[d] < 3*5 {
			t.Errorf("%d answers of %s servers say their model", said[d]/3, d)
		}
	}
}

func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func answerFrame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

const (
	servedPredict = "/tensorflow.serving.PredictionService/Predict"
	servedInfer   = "/inference.GRPCInferenceService/ModelInfer"
	servedStream  = "/inference.GRPCInferenceService/ModelStreamInfer"
)

func TestAnswersSayTheirModel(t *testing.T) {
	grpc, json := ofType("application/grpc+proto"), ofType("application/json")
	spec := slices.Concat(field(1, []byte("m")), field(2, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)))
	infer := slices.Concat(field(1, []byte("m")), field(2, []byte("7")), field(5, make([]byte, 300)))
	compressed := answerFrame(infer)
	compressed[0] = 1
	long := strings.Repeat("x", servedName)
	for name, c := range map[string]struct {
		a    answered
		want Served
	}{
		"model_spec behind 4 MiB":      {answered{"tensorflow", "", servedPredict, grpc, 200, answerFrame(slices.Concat(field(1, make([]byte, 4<<20)), field(2, spec)))}, Served{"m", "7"}},
		"without a version":            {answered{"tensorflow", "", servedPredict, grpc, 200, answerFrame(field(2, field(1, []byte("m"))))}, Served{"m", ""}},
		"session":                      {answered{"tensorflow", "", "/tensorflow.serving.SessionService/SessionRun", grpc, 200, answerFrame(field(3, spec))}, Served{"m", "7"}},
		"metadata":                     {answered{"tensorflow", "", "/tensorflow.serving.PredictionService/GetModelMetadata", grpc, 200, answerFrame(field(1, spec))}, Served{"m", "7"}},
		"status says no one version":   {answered{"tensorflow", "", "/tensorflow.serving.ModelService/GetModelStatus", grpc, 200, answerFrame(field(1, spec))}, Served{}},
		"cut within the tensor":        {answered{"v2", "", servedInfer, grpc, 200, answerFrame(infer)[:60]}, Served{"m", "7"}},
		"cut within the name":          {answered{"v2", "", servedInfer, grpc, 200, answerFrame(infer)[:7]}, Served{}},
		"empty":                        {answered{"v2", "", servedInfer, grpc, 200, nil}, Served{}},
		"compressed":                   {answered{"v2", "", servedInfer, grpc, 200, compressed}, Served{}},
		"no gRPC":                      {answered{"v2", "", servedInfer, ofType("text/html"), 200, answerFrame(infer)}, Served{}},
		"the last of a stream":         {answered{"triton", "", servedStream, grpc, 200, slices.Concat(answerFrame(field(2, infer)), answerFrame(nil), answerFrame(field(2, slices.Concat(field(1, []byte("n")), field(2, []byte("8"))))), answerFrame(field(1, []byte("error"))))}, Served{"n", "8"}},
		"a second message of a call":   {answered{"v2", "", servedInfer, grpc, 200, slices.Concat(answerFrame(infer), answerFrame(field(1, []byte("n"))))}, Served{"m", "7"}},
		"name with controls":           {answered{"v2", "", servedInfer, grpc, 200, answerFrame(slices.Concat(field(1, []byte("m\x1b[2J")), field(2, []byte("7"))))}, Served{}},
		"version with blanks":          {answered{"v2", "", servedInfer, grpc, 200, answerFrame(slices.Concat(field(1, []byte("m")), field(2, []byte("7 8"))))}, Served{"m", ""}},
		"long version":                 {answered{"v2", "", servedInfer, grpc, 200, answerFrame(slices.Concat(field(1, []byte("m")), field(2, []byte(long+"x"))))}, Served{"m", ""}},
		"more fields than are read":    {answered{"v2", "", servedInfer, grpc, 200, answerFrame(slices.Concat([]byte(strings.Repeat("\x18\x01", servedBytes)), infer))}, Served{}},
		"JSON":                         {answered{"triton", "POST", "/v2/models/m/infer", json, 200, []byte(`{"id":"model_name","model_name":"m","model_version":"7","outputs":[{"model_version":"9"}]}`)}, Served{"m", "7"}},
		"JSON, version first":          {answered{"torchserve", "POST", "/v2/models/m/infer", json, 200, []byte(` {"model_version" : "7" , "model_name":"m"}`)}, Served{"m", "7"}},
		"JSON with odd numbers":        {answered{"v2", "POST", "/v2/models/m/infer", json, 200, []byte(`{"outputs":[{"data":[NaN,-Infinity]}],"model_name":"m","model_version":null}`)}, Served{"m", ""}},
		"JSON, version as a number":    {answered{"v2", "POST", "/v2/models/m/infer", json, 200, []byte(`{"model_version":7,"model_name":"m"}`)}, Served{"m", ""}},
		"JSON, only inside":            {answered{"v2", "POST", "/v2/models/m/infer", json, 200, []byte(`{"parameters":{"model_name":"m"},"x":["model_name","m"]}`)}, Served{}},
		"JSON, name in a string":       {answered{"v2", "POST", "/v2/models/m/infer", json, 200, []byte(`{"id":"\",\"model_name\":\"x\"","model_name":"m"}`)}, Served{"m", ""}},
		"JSON, escapes":                {answered{"openai", "POST", "/v1/chat/completions", json, 200, []byte(`{"model":"org\/\u006d"}`)}, Served{"org/m", ""}},
		"JSON, bad escape":             {answered{"openai", "POST", "/v1/chat/completions", json, 200, []byte(`{"model":"\u00"}`)}, Served{}},
		"JSON, control":                {answered{"openai", "POST", "/v1/chat/completions", json, 200, []byte(`{"model":"\u001b[2J"}`)}, Served{}},
		"JSON, long name":              {answered{"openai", "POST", "/v1/chat/completions", json, 200, []byte(`{"model":"` + long + `x"}`)}, Served{}},
		"JSON, twice":                  {answered{"openai", "POST", "/v1/chat/completions", json, 200, []byte(`{"model":"m","model":"n"}`)}, Served{"m", ""}},
		"JSON, behind what is read":    {answered{"openai", "POST", "/v1/chat/completions", json, 200, []byte(`{"x":"` + strings.Repeat("x", servedBytes) + `","model":"m"}`)}, Served{}},
		"JSON, compressed":             {answered{"openai", "POST", "/v1/chat/completions", append(ofType("application/json"), message.Field{Name: "content-encoding", Value: "gzip"}), 200, []byte(`{"model":"m"}`)}, Served{}},
		"JSON of a refusal":            {answered{"openai", "POST", "/v1/chat/completions", json, 404, []byte(`{"model":"m"}`)}, Served{}},
		"audio":                        {answered{"openai", "POST", "/v1/audio/speech", ofType("audio/mpeg"), 200, []byte(`{"model":"m"}`)}, Served{}},
		"a list of models":             {answered{"openai", "GET", "/v1/models", json, 200, []byte(`{"model":"m"}`)}, Served{}},
		"events":                       {answered{"openai", "POST", "/v1/chat/completions", ofType("text/event-stream; charset=utf-8"), 200, []byte(": hi \"\n\ndata: {\"id\":1,\"model\":\"m\"}\n\ndata: [DONE]\n\n")}, Served{"m", ""}},
		"events of Anthropic's API":    {answered{"openai", "POST", "/v1/messages", ofType("text/event-stream"), 200, []byte("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"role\":\"model\",\"model\":\"m\",\"content\":[]}}\n\n")}, Served{"m", ""}},
		"lines":                        {answered{"ollama", "POST", "/api/chat", ofType("application/x-ndjson"), 200, []byte("{\"model\":\"M:latest\",\"done\":false}\n{\"model\":\"n\"}\n")}, Served{"m", ""}},
		"binary tensors":               {answered{"triton", "POST", "/v2/models/m/infer", append(ofType("application/octet-stream"), message.Field{Name: "inference-header-content-length", Value: "18"}), 200, []byte(`{"model_name":"m"}{"model_version":"9"}`)}, Served{"m", ""}},
		"binary tensors, no length":    {answered{"triton", "POST", "/v2/models/m/infer", ofType("application/octet-stream"), 200, []byte(`{"model_name":"m"}`)}, Served{}},
		"binary tensors, odd length":   {answered{"triton", "POST", "/v2/models/m/infer", append(ofType("application/json"), message.Field{Name: "inference-header-content-length", Value: "-1"}), 200, []byte(`{"model_name":"m"}`)}, Served{}},
		"REST without such an answer":  {answered{"tensorflow", "POST", "/v1/models/m:predict", json, 200, []byte(`{"model_version":"7"}`)}, Served{}},
		"KServe's version 1":           {answered{"v2", "POST", "/v1/models/m:predict", json, 200, []byte(`{"model_version":"7"}`)}, Served{}},
		"a server without such answer": {answered{"flask", "POST", "/predict", json, 200, []byte(`{"model":"m"}`)}, Served{}},
	} {
		for _, piece := range []int{1, 3, 1000, 8 << 20} {
			if got, _ := c.a.says(t, piece); got != c.want {
				t.Errorf("%s in pieces of %d: %+v; want %+v", name, piece, got, c.want)
			}
		}
	}
}

// An answer says nothing of those before it, whatever came of them.
func TestServedScannersForgetTheirAnswers(t *testing.T) {
	infer := answerFrame(slices.Concat(field(1, []byte("m")), field(2, []byte("7"))))
	chat := []byte(`{"model":"m"}`)
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		grpc := answered{"v2", "", servedInfer, ofType("application/grpc"), 200, infer[:r.IntN(len(infer)+1)]}
		json := answered{"openai", "POST", "/v1/chat/completions", ofType("application/json"), 200, chat[:r.IntN(len(chat)+1)]}
		grpc.says(t, 1+r.IntN(9))
		json.says(t, 1+r.IntN(9))
		grpc.body, json.body = nil, nil
		for _, a := range []answered{grpc, json} {
			if got, _ := a.says(t, 1); got != (Served{}) {
				t.Fatalf("an empty answer says %+v", got)
			}
		}
	}
}

func FuzzServedScanner(f *testing.F) {
	f.Add(answerFrame(slices.Concat(field(1, []byte("m")), field(2, []byte("7")))))
	f.Add([]byte(`data: {"message":{"model":"m"},"model_name":"m","model_version":"7"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, a := range []answered{
			{"tensorflow", "", servedPredict, ofType("application/grpc"), 200, body},
			{"triton", "", servedStream, ofType("application/grpc"), 200, body},
			{"v2", "POST", "/v2/models/m/infer", ofType("application/json"), 200, body},
			{"openai", "POST", "/v1/chat/completions", ofType("text/event-stream"), 200, body},
		} {
			whole, _ := a.says(t, len(body)+1)
			if pieces, _ := a.says(t, 1); pieces != whole || len(whole.Model) > servedName || len(whole.Version) > servedName {
				t.Errorf("%+v whole, %+v in pieces", whole, pieces)
			}
		}
	})
}
