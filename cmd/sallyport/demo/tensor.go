package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// tensor is a dense tensor of floats, values in row-major order. A scalar has no
// dimension.
type tensor struct {
	shape  []int
	values []float32
}

// open reads a request's JSON object and refuses a model or a signature that
// does not exist, in the order in which the real server does.
func (s spec) open(body []byte) (map[string]any, *failure) {
	document, refused := parse(body)
	if refused != nil {
		return nil, refused
	}
	signature, given := document["signature_name"]
	name, isString := signature.(string)
	if given && !isString {
		return nil, invalid("JSON Value: %s not formatted correctly. 'signature_name' key must be a string value.", jsonText(document))
	}
	if refused := s.find(); refused != nil {
		return nil, refused
	}
	if name != "" && name != "serving_default" {
		return nil, invalid("Serving signature name: %q not found in signature def", name)
	}
	return document, nil
}

// predict computes x/2 + 2 for what the body holds, in the row format
// (instances, predictions) or the columnar format (inputs, outputs).
func (s spec) predict(body []byte) ([]byte, *failure) {
	document, refused := s.open(body)
	if refused != nil {
		return nil, refused
	}
	rows, isRow := document["instances"]
	columns, isColumnar := document["inputs"]
	var x tensor
	switch {
	case isRow && isColumnar:
		return nil, invalid("JSON Value: %s Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ", jsonText(document))
	case isRow:
		x, refused = readInstances(document, rows)
	case isColumnar:
		x, refused = readInputs(columns)
	default:
		return nil, invalid("Missing 'inputs' or 'instances' key")
	}
	if refused != nil {
		return nil, refused
	}
	for i, v := range x.values {
		x.values[i] = v/2 + 2
	}
	var b strings.Builder
	if isRow {
		b.WriteString("{\n    \"predictions\": [")
		size := len(x.values) / x.shape[0]
		for i := range x.shape[0] {
			if i > 0 {
				b.WriteString(", ")
			}
			row := tensor{x.shape[1:], x.values[i*size : (i+1)*size]}
			row.writeLine(&b)
		}
		b.WriteString("\n    ]\n}") // the real server ends the list so
	} else {
		b.WriteString("{\n    \"outputs\": ")
		x.writeIndented(&b, "    ")
		b.WriteString("\n}")
	}
	return []byte(b.String()), nil
}

// readInstances reads the row format: values, or objects with an "x" each, all
// of one shape, which become one tensor.
func readInstances(document map[string]any, v any) (tensor, *failure) {
	list, ok := v.([]any)
	if !ok {
		return tensor{}, invalid("JSON Value: %s Excepting 'instances' to be an list/array", jsonText(document))
	}
	if len(list) == 0 {
		return tensor{}, invalid("JSON Value: %s No values in 'instances' array", jsonText(document))
	}
	_, objects := list[0].(map[string]any)
	var shape []int
	var values []float32
	for i, item := range list {
		object, isObject := item.(map[string]any)
		switch {
		case objects && !isObject:
			return tensor{}, invalid("Expecting object but got list at item %d of input list", i)
		case !objects && isObject:
			return tensor{}, invalid("Expecting value/list but got object at item %d of input list", i)
		case objects:
			x, named := object["x"]
			if !named || len(object) != 1 {
				return tensor{}, invalid("Failed to process element: %d of 'instances' list. JSON object: %s keys must be equal to: x", i, jsonText(object))
			}
			item = x
		}
		t, refused := readTensor(item)
		switch {
		case refused != nil:
			return tensor{}, invalid("Failed to process element: %d of 'instances' list. Error: INVALID_ARGUMENT: %s", i, refused.text)
		case i == 0:
			shape = t.shape
		case len(t.values) != len(values)/i:
			return tensor{}, invalid("Failed to process element: %d of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: %d but got: %d", i, len(values)/i, len(t.values))
		case !slices.Equal(t.shape, shape):
			return tensor{}, invalid("Failed to process element: %d of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape %s but got: %s", i, shapeText(shape), shapeText(t.shape))
		}
		values = append(values, t.values...)
	}
	return tensor{append([]int{len(list)}, shape...), values}, nil
}

// readInputs reads the columnar format: a value, or an object with an "x".
func readInputs(v any) (tensor, *failure) {
	if object, ok := v.(map[string]any); ok {
		x, named := object["x"]
		if !named {
			return tensor{}, invalid("Missing named input: x in 'inputs' object.")
		}
		v = x
	}
	return readTensor(v)
}

// readTensor reads nested lists of numbers. The first item of each list says
// which shape the others must have.
func readTensor(v any) (tensor, *failure) {
	var t tensor
	for item := v; ; {
		list, ok := item.([]any)
		if !ok {
			break
		}
		t.shape = append(t.shape, len(list))
		if len(list) == 0 {
			break
		}
		item = list[0]
	}
	refused := t.fill(v, 0)
	return t, refused
}

// fill adds the numbers of v, which stands at a level of the lists.
func (t *tensor) fill(v any, level int) *failure {
	list, isList := v.([]any)
	switch {
	case !isList && level != len(t.shape):
		return invalid("JSON Value: %s found at incorrect level: %d in the JSON DOM. Expected at level: %d", jsonText(v), level+1, len(t.shape))
	case !isList:
		f, refused := readFloat(v)
		t.values = append(t.values, f)
		return refused
	case level >= len(t.shape):
		return invalid("Encountered list at unexpected level: %d expected < %d", level, len(t.shape))
	case len(list) != t.shape[level]:
		return invalid("Encountered list at unexpected size: %d at level: %d expected size: %d", len(list), level, t.shape[level])
	}
	for _, item := range list {
		if refused := t.fill(item, level+1); refused != nil {
			return refused
		}
	}
	return nil
}

// notFinite marks the names of numbers that JSON has no form for.
const notFinite = "\x00"

func readFloat(v any) (float32, *failure) {
	text := ""
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimPrefix(v, notFinite)
		if text == v {
			return 0, typeError(v)
		}
	default:
		return 0, typeError(v)
	}
	f, err := strconv.ParseFloat(text, 64)
	whole := !strings.ContainsAny(text, ".eEIN")
	if err != nil || whole && math.Abs(f) > 1<<24-1 || !math.IsInf(f, 0) && math.Abs(f) > math.MaxFloat32 {
		return 0, invalid("Cannot convert JSON value: %s to float without loss of precision.", text)
	}
	return float32(f), nil
}

func typeError(v any) *failure {
	kind := "Object"
	switch v := v.(type) {
	case nil:
		kind = "Null"
	case bool:
		kind = "False"
		if v {
			kind = "True"
		}
	case string:
		kind = "String"
	}
	return invalid("JSON Value: %s Type: %s is not of expected type: float", jsonText(v), kind)
}

// parse reads a JSON object in which numbers may be NaN and infinite.
func parse(body []byte) (map[string]any, *failure) {
	if len(body) == 0 {
		return nil, invalid("JSON Parse error: The document is empty")
	}
	names := regexp.MustCompile(`"(?:[^"\\]|\\.)*"|NaN|-?Inf(?:inity)?`)
	body = names.ReplaceAllFunc(body, func(name []byte) []byte {
		if name[0] == '"' {
			return name
		}
		return fmt.Appendf(nil, `"\u0000%s"`, name)
	})
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var document any
	if err := d.Decode(&document); err != nil {
		return nil, invalid("JSON Parse error: Invalid value. at offset: %d", d.InputOffset())
	}
	end := d.InputOffset()
	if _, err := d.Token(); err != io.EOF {
		return nil, invalid("JSON Parse error: The document root must not be followed by other values. at offset: %d", end)
	}
	object, ok := document.(map[string]any)
	if !ok {
		return nil, invalid("JSON Value: %s Is not object", jsonText(document))
	}
	return object, nil
}

// jsonText writes a value as the real server's error texts do.
func jsonText(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	if err := e.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func shapeText(shape []int) string {
	text := make([]string, len(shape))
	for i, n := range shape {
		text[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(text, ",") + "]"
}

// writeLine writes a tensor on one line.
func (t tensor) writeLine(b *strings.Builder) {
	if len(t.shape) == 0 {
		b.WriteString(floatText(t.values[0]))
		return
	}
	b.WriteByte('[')
	for i := range t.shape[0] {
		if i > 0 {
			b.WriteString(", ")
		}
		t.item(i).writeLine(b)
	}
	b.WriteByte(']')
}

// writeIndented writes a tensor with each item on a line.
func (t tensor) writeIndented(b *strings.Builder, indent string) {
	switch {
	case len(t.shape) == 0:
		b.WriteString(floatText(t.values[0]))
		return
	case t.shape[0] == 0:
		b.WriteString("[]")
		return
	}
	b.WriteByte('[')
	for i := range t.shape[0] {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + indent + "    ")
		t.item(i).writeIndented(b, indent+"    ")
	}
	b.WriteString("\n" + indent + "]")
}

// item is the i-th item of a tensor that has a dimension and items.
func (t tensor) item(i int) tensor {
	size := len(t.values) / t.shape[0]
	return tensor{t.shape[1:], t.values[i*size : (i+1)*size]}
}

// floatText writes a float as the real server does: six digits, or nine where
// six would not read back as the same float, and always as a decimal.
func floatText(f float32) string {
	switch v := float64(f); {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	text := strconv.FormatFloat(float64(f), 'g', 6, 32)
	if back, err := strconv.ParseFloat(text, 32); err != nil || float32(back) != f {
		text = strconv.FormatFloat(float64(f), 'g', 9, 32)
	}
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text
}
