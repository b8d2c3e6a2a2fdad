package story

// V2Service is the gRPC service of the Open Inference Protocol, as its methods begin.
const V2Service = "/inference.GRPCInferenceService/"

// V2Rows makes a table of calls that the Open Inference Protocol has over REST and over gRPC.
type V2Rows struct {
	Guarded *Guarded
	Body    string // the JSON of an inference
	Tensor  []byte // the fields of a ModelInferRequest besides the model and its version
	Rows    []Row
}

// Add adds a call: its method and path, its JSON, and its method and message over gRPC. It is allowed with
// the scopes that allowed lists.
func (v *V2Rows) Add(name, line, body, method string, message []byte, allowed ...string) {
	v.Rows = append(v.Rows, v.Guarded.Rows(name,
		Question{Request: Plain(line, body, ContentJSON)},
		Question{Method: V2Service + method, Body: Frames(message)}, allowed...)...)
}

// Infer adds an inference. Version is "" if the call names none.
func (v *V2Rows) Infer(name, model, version string, allowed ...string) {
	path, fields := "POST /v2/models/"+model, [][]byte{Text(1, model)}
	if version != "" {
		path += "/versions/" + version
		fields = append(fields, Text(2, version))
	}
	v.Add(name, path+"/infer", v.Body, "ModelInfer", Message(append(fields, v.Tensor)...), allowed...)
}

// About adds calls about the model double, allowed with the scope predict, and about secret and a model
// that does not exist, which are not. Path follows the name of the model over REST.
func (v *V2Rows) About(path, method string) {
	v.Add(method, "GET /v2/models/double"+path, "", method, Text(1, "double"), "predict")
	v.Add(method+" of another model", "GET /v2/models/secret"+path, "", method, Text(1, "secret"))
	v.Add(method+" of an unknown model", "GET /v2/models/nothing"+path, "", method, Text(1, "nothing"))
}
