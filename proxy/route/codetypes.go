package route

import (
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// checkCodeTypes records the faults of code_types.
func (r *Config) checkCodeTypes(at string, f *setting.Faults) {
	for i, name := range r.CodeTypes {
		if name != model.MediaType(name) || !model.CarriesCode(name) {
			f.Add(setting.Index(at+".code_types", i), name, "is no media type that is refused without it", "remove it, or write a type in lower case and without parameters, such as application/x-pickle")
		}
	}
}
