package model

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

const (
	formType  = "multipart/form-data; boundary=b"
	modelPart = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"
	filePart  = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n"
)

// scanBody scans the body of a request of a dialect, in pieces of a size.
func scanBody(t testing.TB, dialect, path string, fields message.Fields, o ScanOptions, body []byte, size int) (Named, error) {
	t.Helper()
	d, _ := ByName(dialect)
	got, err := d.Read(&Request{Method: "POST", Path: path, Fields: fields})
	if err != nil {
		t.Fatal(err)
	}
	var named Named
	decided := 0
	o.Decide = func(n Named) error { named, decided = n, decided+1; return nil }
	s := got.Scanner(o)
	defer s.Close()
	for len(body) > 0 {
		n := min(size, len(body))
		if _, err := s.Write(body[:n]); err != nil {
			return Named{}, err
		}
		body = body[n:]
	}
	if err := s.Check(); err != nil {
		return Named{}, err
	}
	if decided != 1 {
		t.Errorf("the body was decided %d times", decided)
	}
	return named, nil
}

func scanForm(t testing.TB, contentType, body string, size int) (string, error) {
	t.Helper()
	n, err := scanBody(t, "openai", "/v1/audio/transcriptions", message.Fields{{Name: "content-type", Value: contentType}}, ScanOptions{}, []byte(body), size)
	return n.Model, err
}

func TestFormsNameTheirModel(t *testing.T) {
	for name, c := range map[string]struct{ contentType, body string }{
		"first":            {formType, modelPart + "whisper\r\n" + filePart + "RIFF\r\n--b--\r\n"},
		"last":             {formType, filePart + "RIFF\r\nx\n-\r\n--\r\n--c\r\n" + modelPart + "whisper\r\n--b--\r\n"},
		"no line at end":   {formType, modelPart + "whisper\r\n--b--"},
		"token":            {formType, "--b\r\ncontent-disposition:form-data;name=model\r\n\r\nwhisper\r\n--b--\r\n"},
		"quoted boundary":  {`multipart/form-data; boundary="b"`, modelPart + "whisper\r\n--b--\r\n"},
		"plain text":       {formType, "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n"},
		"other fields":     {formType, "--b\r\nContent-Disposition: form-data; name=\"timestamp_granularities[]\"\r\n\r\nword\r\n" + modelPart + "whisper\r\n--b--\r\n"},
		"file with a star": {formType, "--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''%e2%82%ac.wav\r\n\r\nx\r\n" + modelPart + "whisper\r\n--b--\r\n"},
	} {
		for size := 1; size < 40; size += 6 {
			if got, err := scanForm(t, c.contentType, c.body, size); err != nil || got != "whisper" {
				t.Errorf("%s, in pieces of %d: %q, %v", name, size, got, err)
			}
		}
	}
}

// Each form has a victim, secret, that some parser could read where another reads whisper.
func TestFormsThatServersReadDifferentlyAreRefused(t *testing.T) {
	part := func(header string) string {
		return modelPart + "whisper\r\n--b\r\n" + header + "\r\n\r\nsecret\r\n--b--\r\n"
	}
	alone := func(header string) string { return "--b\r\n" + header + "\r\n\r\nsecret\r\n--b--\r\n" }
	for name, c := range map[string]struct{ contentType, body string }{
		"no type":              {"", modelPart + "whisper\r\n--b--\r\n"},
		"JSON":                 {"application/json", `{"model":"secret"}`},
		"a form of a URL":      {"application/x-www-form-urlencoded", "model=secret"},
		"two boundaries":       {"multipart/form-data; boundary=b; boundary=c", modelPart + "whisper\r\n--b--\r\n"},
		"boundary*":            {"multipart/form-data; boundary*=utf-8''b", modelPart + "whisper\r\n--b--\r\n"},
		"boundary with blank":  {`multipart/form-data; boundary="b c"`, modelPart + "whisper\r\n--b--\r\n"},
		"charset":              {"multipart/form-data; charset=utf-16; boundary=b", modelPart + "whisper\r\n--b--\r\n"},
		"mixed":                {"multipart/mixed; boundary=b", modelPart + "whisper\r\n--b--\r\n"},
		"twice":                {formType, part(`Content-Disposition: form-data; name="model"`)},
		"case":                 {formType, part(`Content-Disposition: form-data; name="Model"`)},
		"brackets":             {formType, part(`Content-Disposition: form-data; name="model[]"`)},
		"blank":                {formType, part(`Content-Disposition: form-data; name=" model"`)},
		"escape":               {formType, part(`Content-Disposition: form-data; name="mo\del"`)},
		"percent":              {formType, part(`Content-Disposition: form-data; name="mo%64el"`)},
		"name*":                {formType, part(`Content-Disposition: form-data; name="x"; name*=utf-8''model`)},
		"name twice":           {formType, part(`Content-Disposition: form-data; name="x"; name="model"`)},
		"name in capitals":     {formType, part(`Content-Disposition: form-data; NAME="model"`)},
		"name within filename": {formType, part(`Content-Disposition: form-data; filename="x; name=model"; name="x"`)},
		"semicolon in quotes":  {formType, part(`Content-Disposition: form-data; name="x"; filename="x; name=model"`)},
		"no name":              {formType, part(`Content-Disposition: form-data`)},
		"other disposition":    {formType, part(`Content-Disposition: attachment; name="model"`)},
		"disposition twice":    {formType, part("Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"")},
		"no disposition":       {formType, part(`Content-Type: text/plain`)},
		"folded":               {formType, part("Content-Disposition: form-data;\r\n name=\"model\"")},
		"bare line feed":       {formType, part("X: y\nContent-Disposition: form-data; name=\"model\"")},
		"nested":               {formType, part("Content-Disposition: form-data; name=\"x\"\r\nContent-Type: multipart/mixed; boundary=c")},
		"file":                 {formType, alone(`Content-Disposition: form-data; name="model"; filename="m"`)},
		"file*":                {formType, alone(`Content-Disposition: form-data; name="model"; filename*=utf-8''m`)},
		"encoded":              {formType, alone("Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64")},
		"in UTF-16":            {formType, alone("Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=utf-16")},
		"before the boundary":  {formType, "x\r\n" + modelPart + "whisper\r\n--b--\r\n"},
		"line before":          {formType, "\r\n" + modelPart + "whisper\r\n--b--\r\n"},
		"after the boundary":   {formType, "--b \r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n"},
		"after the end":        {formType, modelPart + "whisper\r\n--b--\r\n" + modelPart + "secret\r\n--b--\r\n"},
		"boundary behind LF":   {formType, modelPart + "whisper\r\n" + filePart + "x\n" + modelPart + "secret\r\n--b--\r\n"},
		"boundary behind CR":   {formType, modelPart + "whisper\r\n" + filePart + "x\r" + modelPart + "secret\r\n--b--\r\n"},
		"boundary at start":    {formType, modelPart + "whisper\r\n" + filePart + modelPart + "secret\r\n--b--\r\n"},
		"cut":                  {formType, modelPart + "whisper\r\n--b"},
		"cut in the name":      {formType, modelPart + "whis"},
		"one dash":             {formType, modelPart + "whisper\r\n--b-x"},
		"no model":             {formType, filePart + "RIFF\r\n--b--\r\n"},
		"empty":                {formType, modelPart + "\r\n--b--\r\n"},
		"line in the name":     {formType, modelPart + "whisper\r\nsecret\r\n--b--\r\n"},
		"long name":            {formType, modelPart + strings.Repeat("m", 600) + "\r\n--b--\r\n"},
		"long header":          {formType, part("X: " + strings.Repeat("y", 9000))},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			if got, err := scanForm(t, c.contentType, c.body, size); !errors.Is(err, ErrBody) {
				t.Errorf("%s, in pieces of %d: %q, %v; want a refusal", name, size, got, err)
			}
		}
	}
}

// FuzzForm compares with Go's parser: what passes names the model that Go reads, and it once.
func FuzzForm(f *testing.F) {
	f.Add(formType, modelPart+"whisper\r\n"+filePart+"RIFF\r\n--b--\r\n")
	f.Add(formType, filePart+"x\n--b\r\n--\r\n"+modelPart+"whisper\r\n--b--")
	f.Add(`multipart/form-data; boundary="b"`, modelPart+"a\r\n--b\r\nContent-Disposition: form-data; name=x; filename=y\r\n\r\n\r\n--b--")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		got, err := scanForm(t, contentType, body, 1+len(body)%13)
		whole, werr := scanForm(t, contentType, body, len(body)+1)
		if whole != got || (err == nil) != (werr == nil) {
			t.Fatalf("pieces: %q, %v; whole: %q, %v", got, err, whole, werr)
		}
		if err != nil {
			return
		}
		_, parameters, err := mime.ParseMediaType(contentType)
		if err != nil {
			t.Fatalf("Go does not read the type %q: %v", contentType, err)
		}
		var models []string
		for r := multipart.NewReader(strings.NewReader(body), parameters["boundary"]); ; {
			p, err := r.NextRawPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("Go does not read the form: %v", err)
			}
			if strings.EqualFold(p.FormName(), "model") {
				text, _ := io.ReadAll(p)
				models = append(models, string(text)+p.FileName())
			}
		}
		if len(models) != 1 || models[0] != got {
			t.Errorf("the scanner reads %q, Go reads %q", got, models)
		}
	})
}

func gzipped(t testing.TB, plain string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(plain)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRow9CompressedBodiesAreInflatedToBeRead has bodies that a gateway could not look into.
func TestRow9CompressedBodiesAreInflatedToBeRead(t *testing.T) {
	json := message.Fields{{Name: "content-type", Value: "application/json"}}
	const path = "/v1/chat/completions"
	body := gzipped(t, `{"model":"secret","messages":[]}`)
	got, err := scanBody(t, "openai", path, json, ScanOptions{Encoding: "gzip", Inflate: 1 << 10}, body, 5)
	if err != nil || got.Model != "secret" {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		o    ScanOptions
		body []byte
	}{
		"refused here":    {ScanOptions{Encoding: "gzip"}, body},
		"too large":       {ScanOptions{Encoding: "gzip", Inflate: 16}, body},
		"cut":             {ScanOptions{Encoding: "gzip", Inflate: 1 << 10}, body[:len(body)-1]},
		"a second member": {ScanOptions{Encoding: "gzip", Inflate: 1 << 10}, append(bytes.Clone(body), body...)},
		"not compressed":  {ScanOptions{Encoding: "gzip", Inflate: 1 << 10}, []byte(`{"model":"secret"}`)},
		"another coding":  {ScanOptions{Encoding: "br", Inflate: 1 << 10}, body},
		"zstd claimed":    {ScanOptions{Encoding: "zstd", Inflate: 1 << 10}, []byte(`{"model":"secret"}`)},
		"deflate":         {ScanOptions{Encoding: "deflate", Inflate: 1 << 10}, body},
		"two codings":     {ScanOptions{Encoding: "gzip, gzip", Inflate: 1 << 10}, body},
		"no coding said":  {ScanOptions{Inflate: 1 << 10}, body},
		"two models":      {ScanOptions{Encoding: "gzip", Inflate: 1 << 10}, gzipped(t, `{"model":"public","model":"secret"}`)},
		"nothing":         {ScanOptions{Encoding: "gzip", Inflate: 1 << 10}, nil},
	} {
		if got, err := scanBody(t, "openai", path, json, c.o, c.body, 7); !errors.Is(err, ErrBody) {
			t.Errorf("%s: %+v, %v; want a refusal", name, got, err)
		}
	}
}

func TestContentTypesThatCarryCode(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/x-pickle": true, "Application/Pickle; x=y": true, "application/python-pickle": true, "application/vnd.bentoml+pickle": true,
		"application/x-python-serialize": true, "application/x-joblib": true, "application/x-dill": true, "application/x-npy": true, "application/x-npz": true,
		"application/x-java-serialized-object": true, "multipart/related; type=\"application/x-pickle\"": true, "application/json, application/x-pickle": true,
		"": false, "application/json": false, "text/csv": false, "application/octet-stream": false, "multipart/form-data; boundary=b": false, "application/grpc+proto": false,
	} {
		if CarriesCode(contentType) != want {
			t.Errorf("%q carries code: %v; want %v", contentType, !want, want)
		}
	}
}
