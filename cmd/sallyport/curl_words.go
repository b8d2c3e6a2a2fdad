package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"sallyport/auth/httpsig"
)

// refusal says in words why an answer has a status of 400 or more; it is nil below.
func (w *wire) refusal() error {
	status := w.answer.StatusCode
	if status < http.StatusBadRequest {
		return nil
	}
	text := fmt.Sprintf("%s answered %d %s", w.host(), status, http.StatusText(status))
	if w.reason == "" {
		return errors.New(text)
	}
	why := w.advice()
	if why == "" {
		return fmt.Errorf("%s: %q", text, w.reason)
	}
	return fmt.Errorf("%s: %s: %s", text, w.reason, why)
}

func (w *wire) host() string { return w.sent.URL.Host }

// advice is what a reason means and what would do; "" for those that signatures
// have nothing to do with.
func (w *wire) advice() string {
	host := w.host()
	switch w.reason {
	case "signature_missing":
		return host + " found no signature: something on the way removes Signature and Signature-Input, or the tag is not the one it wants"
	case "malformed":
		return "the signature cannot be read: something on the way changes Signature or Signature-Input"
	case "coverage":
		return "the signature does not cover all that the route demands" + w.uncovered()
	case "stale", "future":
		return w.clocks()
	case "bad_signature":
		return "the signature is not that of this request by the key that " + host + " has under this id:\n" +
			"id or secret differ, the key is not valid now, or something on the way changed the request. With -v, what was sent is shown:\n" +
			fmt.Sprintf("sallyport verify --explain --secret %s tells whether it is signed right, and of what arrived, where the two part", w.secret)
	case "replayed":
		return host + " has seen this signature before: something on the way sends requests twice; each run of sallyport curl signs anew"
	case "digest_missing", "digest_mismatch":
		return "the content that arrived is not what was signed: something on the way changed it"
	case "authority":
		return host + " does not serve this name; call it by the name that its route has"
	case "upstream_signature":
		return "what the server behind the gateway answered was not signed, or not as it must be"
	case "replay_window":
		return host + " has just started and cannot know yet what it has seen before" + w.later()
	case "replay_full", "body_memory":
		return host + " has too much to remember at the moment" + w.later()
	}
	return ""
}

// uncovered names the components that the answer asks for and that were not signed.
func (w *wire) uncovered() string {
	wanted, err := httpsig.ParseAcceptSignature(httpsig.Header(w.answer.Header))
	if err != nil {
		return ""
	}
	var names []string
	for _, one := range wanted {
		for _, c := range one.Components {
			if !strings.Contains(w.sent.Header.Get("Signature-Input"), `"`+c+`"`) {
				names = append(names, c)
			}
		}
	}
	if len(names) == 0 {
		return "; ask the operator which headers must be signed, and give them with -H"
	}
	return ": " + strings.Join(names, ", ") + "; give them with -H"
}

// later is when to try again.
func (w *wire) later() string {
	if after := w.answer.Header.Get("Retry-After"); after != "" && strings.Trim(after, "0123456789") == "" {
		return "; try again in " + after + " s"
	}
	return "; try again later"
}

// clocks compares the local clock with that of the other side.
func (w *wire) clocks() string {
	date, err := http.ParseTime(w.answer.Header.Get("Date"))
	if err != nil {
		return "the clocks differ, but the answer has no Date to tell by how much"
	}
	switch off := date.Sub(w.at).Round(time.Second); {
	case off > 2*time.Second: // Date has whole seconds, and takes its way
		return fmt.Sprintf("your clock is %d s behind %s", off/time.Second, w.host())
	case off < -2*time.Second:
		return fmt.Sprintf("your clock is %d s ahead of %s", -off/time.Second, w.host())
	}
	return "your clock and that of " + w.host() + " agree: the signature was too long on the way, or is an old one that was sent again"
}

// inWords says why there is no answer, or none that is verified.
func (w *wire) inWords(err error) error {
	var bad *httpsig.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("--max-time is over, and the answer was not whole")
	case w.sent == nil: // nothing was sent
		return err
	case w.answer == nil:
		return fmt.Errorf("asking %s: %w", w.host(), err)
	case errors.As(err, new(*fs.PathError)), errors.As(err, new(*os.LinkError)), errors.Is(err, errLong):
		return fmt.Errorf("writing: %w", err)
	case !errors.As(err, &bad):
		return fmt.Errorf("NOT VERIFIED: the answer was cut short: %w", err)
	}
	if refused := w.refusal(); refused != nil && bad.Code == httpsig.Missing {
		return fmt.Errorf("%w\n(this refusal is not signed: whoever is on the way could have made it)", refused)
	}
	return fmt.Errorf("NOT VERIFIED: the answer with status %d: %s%s", w.answer.StatusCode, bad, w.cure(bad))
}

// cure is what to do about an answer that is not verified.
func (w *wire) cure(bad *httpsig.Error) string {
	switch bad.Code {
	case httpsig.Missing:
		if strings.HasPrefix(w.answer.Header.Get("Content-Type"), "text/event-stream") {
			return "\nthe end of the stream is missing, or its route signs in comments (events: inline), which are not read here"
		}
		return "\nits route does not sign, or something on the way removed the signature; --unsigned-ok takes it all the same"
	case httpsig.Coverage:
		return "\n--unsigned-ok takes answers whose head alone is signed"
	case httpsig.UnknownKey:
		return "\nit is signed with another key; if that is the gateway's own, give it with --response-key"
	case httpsig.Stale, httpsig.Future:
		return "\n" + w.clocks()
	case httpsig.BadSignature, httpsig.DigestMismatch:
		return "\nsomething on the way changed it, or it is signed with another secret"
	}
	return ""
}
