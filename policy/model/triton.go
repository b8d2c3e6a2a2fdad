package model

// triton is the dialect of NVIDIA Triton and other servers of the Open Inference
// Protocol. They decode a request once its whole body has arrived.
func triton() *Dialect {
	return &Dialect{name: "triton", rest: readMethod, refusal: errorText, actsOnWhole: true}
}
