package model

// sageMaker is the dialect of containers for SageMaker hosting that have one model: /invocations and
// /ping, as Amazon's "Custom Inference Code with Hosting Services" says.
func sageMaker() *Dialect { return newSageMaker("", nil) }

func newSageMaker(name string, _ []call) *Dialect {
	return &Dialect{
		name: "sagemaker", refusal: problem, namesModels: name != "", one: newSageMaker,
		verbs: []string{"predict", "health"}, drops: steering[:],
		rest: func(r *Request) (Reading, error) { return readOne("sagemaker", sageMakerEndpoints[:], r, name) },
	}
}

var sageMakerEndpoints = [...]endpoint{
	{method: "POST", path: "/invocations", verb: "predict"},
	{method: "GET", path: "/ping", verb: "health", server: true},
}
