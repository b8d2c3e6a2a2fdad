package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"sallyport/auth/httpsig"
)

// refusal returns an error that explains an answer with status 400 or more; nil below.
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

// advice explains a reason and says what to do; "" for reasons unrelated to signatures.
func (w *wire) advice() string {
	host := w.host()
	switch w.reason {
	case "signature_missing":
		return host + " found no signature: an intermediary removes Signature and Signature-Input, or the tag is wrong"
	case "malformed":
		return "the signature cannot be parsed: an intermediary changes Signature or Signature-Input"
	case "coverage":
		return "the signature does not cover all that the route requires" + w.uncovered()
	case "stale", "future":
		return w.clocks()
	case "bad_signature":
		return host + " could not verify the signature with its key of this id:\n" +
			"id or secret differ, or an intermediary changed the request. Print the sent request with -v, and\n" +
			fmt.Sprintf("run sallyport verify --explain --secret %s on it, and on the request as it arrived, to see where they differ", w.secret)
	case "key_expired":
		return "this key is no longer valid at " + host + ": sign with the new one, or ask the operator for it"
	case "key_not_yet_valid":
		return "this key is not valid yet at " + host + ": sign with the earlier one until then"
	case "replayed":
		return host + " has seen this signature before: an intermediary sends requests twice; each run of sallyport curl signs anew"
	case "digest_missing", "digest_mismatch":
		return "the content that arrived does not match its digest: an intermediary changed it"
	case "forbidden":
		return host + " knows your key, but no rule of the route allows this request; ask the operator for a rule with who: {principal: \"key:YOU\"}"
	case "unlisted_credential":
		return "the route does not accept requests signed with this key; ask the operator to list your key under callers"
	case "step_up":
		return "the token that you send does not prove an authentication as strong or recent as the route demands; get one by\n" +
			"sallyport token " + stepUpFlags(w.answer.Header.Get("WWW-Authenticate"))
	case "authority":
		return host + " does not serve this name; use the host name of the route"
	case "upstream_signature":
		return "the signature of the server behind the gateway is missing or not valid"
	case "replay_window":
		return host + " has just started and cannot recognize replays of earlier requests yet" + w.later()
	case "replay_full", "body_memory":
		return host + " has no memory left for this request at the moment" + w.later()
	}
	return ""
}

// uncovered lists the components that the answer asks for and the request did not sign.
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

// later says when to try again.
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
		return "the clocks differ; by how much is unknown, since the answer has no Date"
	}
	switch off := date.Sub(w.at).Round(time.Second); {
	case off > 2*time.Second: // tolerates rounding and latency
		return fmt.Sprintf("your clock is %d s behind %s", off/time.Second, w.host())
	case off < -2*time.Second:
		return fmt.Sprintf("your clock is %d s ahead of %s", -off/time.Second, w.host())
	}
	return "your clock and that of " + w.host() + " agree: the request took too long to arrive, or it repeats an old signature"
}

// cureUnreached says which flag helps where err kept the request from the gateway; "" if none does.
func cureUnreached(err error) string {
	var name *net.DNSError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "; --cacert names the root certificate to trust, such as root.pem of a local authority"
	case errors.As(err, &name) && name.IsNotFound:
		return "; --resolve HOST:PORT:ADDRESS gives the address of a name that DNS does not know"
	}
	return ""
}

// explainError explains why there is no answer, or none that is verified.
func (w *wire) explainError(err error) error {
	var bad *httpsig.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("the answer was not complete within --max-time")
	case w.sent == nil: // nothing was sent
		return err
	case w.answer == nil:
		return fmt.Errorf("asking %s: %w%s", w.host(), err, cureUnreached(err))
	case errors.As(err, new(*fs.PathError)), errors.As(err, new(*os.LinkError)), errors.Is(err, errTooLong):
		return fmt.Errorf("writing: %w", err)
	case !errors.As(err, &bad):
		return fmt.Errorf("NOT VERIFIED: the answer was cut short: %w", err)
	}
	if refused := w.refusal(); refused != nil && bad.Code == httpsig.Missing {
		return fmt.Errorf("%w\n(this refusal is not signed: an intermediary could have made it)", refused)
	}
	return fmt.Errorf("NOT VERIFIED: the answer with status %d: %s%s", w.answer.StatusCode, bad, w.cure(bad))
}

// cure says what to do about an answer that does not verify.
func (w *wire) cure(bad *httpsig.Error) string {
	switch bad.Code {
	case httpsig.Missing:
		if strings.HasPrefix(w.answer.Header.Get("Content-Type"), "text/event-stream") {
			return "\nthe end of the stream is missing, or its route signs in comments (events: inline), which are not read here"
		}
		return "\nits route does not sign, or an intermediary removed the signature; --unsigned-ok accepts it anyway"
	case httpsig.Coverage:
		return "\n--unsigned-ok accepts answers of which only the head is signed"
	case httpsig.UnknownKey:
		return "\nit is signed with another key; if that is the gateway's own, name it with --response-key"
	case httpsig.Stale, httpsig.Future:
		return "\n" + w.clocks()
	case httpsig.BadSignature, httpsig.DigestMismatch:
		return "\nan intermediary changed it, or it is signed with another secret"
	}
	return ""
}
