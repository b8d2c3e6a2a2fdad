package exchange

import (
	"errors"
	"fmt"

	"sallyport/proxy/setting"
	"sallyport/proxy/shared"
)

// claim uses up the nonce of a signed request, for all replicas. It follows admission, so that a
// 403, 429 or 503 uses none, and precedes reading the content. Limits that need the model in the
// content come later.
func (x *exchange) claim() error {
	s := x.proof.Signature
	if s == nil {
		return nil
	}
	if x.asker != "" && s.Covers("content-digest") {
		// The asking proxy has the content, and would not check its digest.
		return because(reasonUndecided, "the signature covers content-digest, and the content stays with the proxy that asks")
	}
	err := x.server.Replay.Claim(x.life, s.Key.ID(), s.Claim, s.Created, s.Until())
	var window *shared.WindowError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, shared.ErrReplayed):
		return &refusal{reason: reasonReplayed, cause: fmt.Errorf("%w: keyid %s", err, setting.Quoted(s.Key.ID(), 64)), keyID: s.Key.ID()}
	case errors.As(err, &window):
		return &refusal{reason: reasonReplayWindow, cause: err, retryAfter: window.Until.Sub(x.server.now())}
	}
	var share *shared.KeyFullError
	switch {
	case errors.As(err, &share):
		err = fmt.Errorf("%w (integrity.nonces_per_key)", err)
	case errors.Is(err, shared.ErrFull):
		err = fmt.Errorf("%w (integrity.nonces)", err)
	}
	return &refusal{reason: reasonReplayFull, cause: err, retryAfter: busyRetry}
}
