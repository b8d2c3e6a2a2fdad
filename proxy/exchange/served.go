package exchange

import "sallyport/policy/model"

// readServed reads a piece of the answer that has been sent to the client.
func (x *exchange) readServed(p []byte) {
	if x.served != nil {
		x.served.Write(p)
	}
}

// recordServed records which model and version the answer says it is of. The model is recorded if it is not
// the one that was asked.
func (x *exchange) recordServed(asked model.Call) {
	if x.served == nil {
		return
	}
	said := x.served.End()
	x.served = nil
	if said.Model != asked.Model {
		x.record.ServedModel = said.Model
	}
	x.record.ServedVersion = said.Version
}
