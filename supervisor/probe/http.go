package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
)

// maxResponseHeader limits the part of a response that is read. The body is not read.
const maxResponseHeader = 64 << 10

// transport makes a connection for each check and closes it. A connection that stays open would need two goroutines
// for each idle check, and would hide that the server accepts no more connections. Proxies of the environment are not
// used.
var transport = &http.Transport{
	DialContext:            (&net.Dialer{}).DialContext,
	DisableKeepAlives:      true,
	DisableCompression:     true,
	MaxResponseHeaderBytes: maxResponseHeader,
}

// newHTTP returns a prober that GETs a URL. A redirect is an answer and not followed.
func newHTTP(s Spec) Prober {
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	target := shownURL(s.URL)
	return question{"http " + target, http.MethodGet + " " + target, func(ctx context.Context) error {
		return get(ctx, client, s)
	}}
}

func get(ctx context.Context, client *http.Client, s Spec) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		return withoutURL(err)
	}
	request.Header.Set("User-Agent", "hsu-master")
	for name, content := range s.Headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			request.Host = content
		} else {
			request.Header.Set(name, content)
		}
	}
	response, err := client.Do(request)
	if err != nil {
		return withoutURL(err)
	}
	_ = response.Body.Close()
	code := response.StatusCode
	if slices.Contains(s.Status, code) || len(s.Status) == 0 && code >= 200 && code <= 399 {
		return nil
	}
	// Not the server's own words for the code.
	return fmt.Errorf("%d %s", code, http.StatusText(code))
}

// withoutURL drops the URL from an error, which may contain a secret.
func withoutURL(err error) error {
	if failed, is := errors.AsType[*url.Error](err); is {
		return failed.Err
	}
	return err
}

// shownURL returns the URL without the parts that may be secret: user, password and query.
func shownURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "?"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	if u.RawQuery != "" {
		return shown.String() + "?..."
	}
	return shown.String()
}
