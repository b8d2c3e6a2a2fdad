package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protowire"
)

// ErrListing is the error of [Reading.FilterList] for an answer that is no list as the servers of the
// dialect write it.
var ErrListing = errors.New("the list of models cannot be read")

// Lists reports whether the answer lists models that the gateway can leave out.
func (r *Reading) Lists() bool {
	d := r.Call.Dialect
	return d != nil && d.lists && r.Call.Server && (r.Call.Verb == "list" || d.name == "ollama" && r.Path == "/api/ps")
}

// FilterList returns the content of an answer without the models for which keep returns false. keep
// gets canonical names. An entry without a name, or with a name that no model can have, is left out.
// Of a list over gRPC, content is the messages with their heads, which must not be compressed. The
// error is [ErrListing]; then nothing of the content may be shown.
func (r *Reading) FilterList(content []byte, keep func(name string) bool) ([]byte, error) {
	named := func(name string) bool {
		canonical, err := r.Call.Dialect.CanonicalModel(name)
		return err == nil && canonical != "" && keep(canonical)
	}
	switch {
	case !r.GRPC():
		return filterJSON(content, named)
	case r.Call.Dialect.name == torchServeName:
		return filterIndex(content, func(_, text []byte) ([]byte, error) {
			text, err := filterJSON(text, named)
			return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), text), err
		})
	}
	return filterIndex(content, func(field, entry []byte) ([]byte, error) {
		if names := namesIn(entry); len(names) != 1 || !named(names[0]) {
			return nil, nil
		}
		return field, nil
	})
}

// filterJSON filters a JSON array of models, or the arrays of models of an object: {"data": [{"id":
// ...}]} of OpenAI, {"models": [...]} of Ollama, llama.cpp, KServe and TorchServe, and the array of
// the Open Inference Protocol's repository index.
func filterJSON(content []byte, keep func(string) bool) ([]byte, error) {
	value := jsontext.Value(bytes.TrimSpace(content))
	if !value.IsValid() { // also if a member stands twice
		return nil, ErrListing
	}
	if value.Kind() == '[' {
		return filterArray(value, keep)
	}
	if value.Kind() != '{' {
		return nil, ErrListing
	}
	found := false
	out := []byte{'{'}
	err := eachMember(value, func(name, raw jsontext.Value, text string) (err error) {
		switch text {
		case "data", "models", "workflows":
			if found = true; raw.Kind() != '[' {
				return ErrListing
			}
			if raw, err = filterArray(raw, keep); err != nil {
				return err
			}
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, name...), ':'), raw...)
		return nil
	})
	if err != nil || !found {
		return nil, ErrListing
	}
	return append(out, '}'), nil
}

// eachMember calls f with the name and value of each member of a JSON object.
func eachMember(object jsontext.Value, f func(name, value jsontext.Value, text string) error) error {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return err
		}
		name = name.Clone()
		text, err := jsontext.AppendUnquote(nil, name)
		if err != nil {
			return err
		}
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := f(name, value.Clone(), string(text)); err != nil {
			return err
		}
	}
	return nil
}

func filterArray(array jsontext.Value, keep func(string) bool) (jsontext.Value, error) {
	d := jsontext.NewDecoder(bytes.NewReader(array))
	if _, err := d.ReadToken(); err != nil {
		return nil, ErrListing
	}
	out := jsontext.Value{'['}
	for d.PeekKind() != ']' {
		entry, err := d.ReadValue()
		if err != nil {
			return nil, ErrListing
		}
		if !keepEntry(entry, keep) {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, entry...)
	}
	return append(out, ']'), nil
}

// keepEntry reports whether every name that an entry gives is one to keep.
func keepEntry(entry jsontext.Value, keep func(string) bool) bool {
	switch entry.Kind() {
	case '"':
		name, err := jsontext.AppendUnquote(nil, entry)
		return err == nil && keep(string(name))
	case '{':
	default:
		return false
	}
	named, kept := false, true
	err := eachMember(entry.Clone(), func(_, value jsontext.Value, text string) error {
		switch text {
		case "id", "name", "model", "modelName", "workflowName":
		default:
			return nil
		}
		if value.Kind() != '"' {
			kept = false
			return nil
		}
		name, err := jsontext.AppendUnquote(nil, value)
		named, kept = true, kept && err == nil && keep(string(name))
		return err
	})
	return err == nil && named && kept
}

// filterIndex filters what field 1 of messages holds: of the RepositoryIndexResponse of Triton and
// MLServer models, each with its name in field 1, and of TorchServe's ManagementResponse the JSON that its
// REST API answers. edit gets a field 1 and its value, and returns the field to send.
func filterIndex(content []byte, edit func(field, value []byte) ([]byte, error)) ([]byte, error) {
	var out []byte
	for len(content) > 0 {
		if len(content) < 5 || content[0] != 0 || uint64(len(content)-5) < uint64(binary.BigEndian.Uint32(content[1:])) {
			return nil, ErrListing
		}
		size := binary.BigEndian.Uint32(content[1:])
		message, err := filterModels(content[5:5+size], edit)
		if err != nil {
			return nil, err
		}
		out = append(binary.BigEndian.AppendUint32(append(out, 0), uint32(len(message))), message...)
		content = content[5+size:]
	}
	return out, nil
}

func filterModels(message []byte, edit func(field, value []byte) ([]byte, error)) ([]byte, error) {
	var out []byte
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, ErrListing
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 || number == 1 && kind != protowire.BytesType {
			return nil, ErrListing
		}
		field := message[:n+size]
		message = message[n+size:]
		if number == 1 {
			value, _ := protowire.ConsumeBytes(field[n:])
			var err error
			if field, err = edit(field, value); err != nil {
				return nil, err
			}
		}
		out = append(out, field...)
	}
	return slices.Clip(out), nil
}

// namesIn returns the strings in field 1 of a message; nil if the message is malformed.
func namesIn(message []byte) (all []string) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 || number == 1 && kind != protowire.BytesType {
			return nil
		}
		if number == 1 {
			name, _ := protowire.ConsumeBytes(message[n:])
			all = append(all, string(name))
		}
		message = message[n+size:]
	}
	return all
}
