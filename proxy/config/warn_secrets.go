package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sallyport/proxy/setting"
)

// warnSecrets records files of secrets that every user of the machine can read, wherever the
// configuration names one.
func (c *Config) warnSecrets(f *setting.Faults) {
	warnSecretsIn(reflect.ValueOf(c).Elem(), "", f)
}

func warnSecretsIn(v reflect.Value, at string, f *setting.Faults) {
	if s, ok := v.Interface().(setting.Secret); ok {
		if warning := s.Warning(); warning != "" {
			problem, cure, _ := strings.Cut(warning, "; ")
			f.Add(at, "", problem, cure)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			warnSecretsIn(v.Elem(), at, f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			warnSecretsIn(v.Index(i), setting.Index(at, i), f)
		}
	case reflect.Map:
		named := map[string]reflect.Value{}
		for _, key := range v.MapKeys() {
			named[fmt.Sprint(key)] = v.MapIndex(key)
		}
		for _, name := range slices.Sorted(maps.Keys(named)) {
			warnSecretsIn(named[name], setting.Join(at, name), f)
		}
	case reflect.Struct:
		for _, field := range reflect.VisibleFields(v.Type()) {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if field.IsExported() && len(field.Index) == 1 && name != "-" {
				warnSecretsIn(v.FieldByIndex(field.Index), strings.Trim(setting.Join(at, name), "."), f)
			}
		}
	}
}
