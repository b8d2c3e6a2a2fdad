package pages

import (
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/proxy/setting"
)

// Config is the section `pages`: the look of the gateway's own pages for people.
type Config struct {
	// Title is the name of the service, above every page. Default: the host.
	Title string `yaml:"title"`
	// Logo is a file with a picture beside the title: SVG, PNG, JPEG, GIF or WebP, up to 64KiB. It is
	// read again when it changes.
	Logo setting.Path `yaml:"logo"`
}

const (
	maxTitle = 80       // characters
	maxLogo  = 64 << 10 // bytes; every page has the logo inside
)

// Check records every fault of the section, whose place in the configuration is path.
func (c *Config) Check(path string, f *setting.Faults) {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if !utf8.ValidString(c.Title) || utf8.RuneCountInString(c.Title) > maxTitle || strings.ContainsFunc(c.Title, bad) || c.Title != strings.TrimSpace(c.Title) {
		f.Add(setting.Join(path, "title"), c.Title, "not a title", fmt.Sprintf("write up to %d printable characters in one line", maxTitle))
	}
}

// ReadLogo reads the file of the logo and returns it as a URL; "" if there is none.
func (c *Config) ReadLogo() (template.URL, error) {
	if c.Logo == "" {
		return "", nil
	}
	name := string(c.Logo)
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	picture, err := io.ReadAll(io.LimitReader(file, maxLogo+1))
	switch {
	case err != nil:
		return "", err
	case len(picture) > maxLogo:
		return "", fmt.Errorf("%s is larger than %s", name, setting.Size(maxLogo))
	}
	media := mediaOf(picture)
	if media == "" {
		return "", errors.New(name + " is no picture that is taken: SVG, PNG, JPEG, GIF or WebP")
	}
	return template.URL("data:" + media + ";base64," + base64.StdEncoding.EncodeToString(picture)), nil
}

// mediaOf returns the media type of a picture by its first bytes; "" if it is none. Scripts in SVG do
// not run, because browsers run none in what an img element shows.
func mediaOf(picture []byte) string {
	for _, known := range [...]struct{ begin, media string }{
		{"\x89PNG\r\n\x1a\n", "image/png"}, {"\xff\xd8\xff", "image/jpeg"}, {"GIF87a", "image/gif"}, {"GIF89a", "image/gif"},
	} {
		if strings.HasPrefix(string(picture), known.begin) {
			return known.media
		}
	}
	begin := string(picture[:min(len(picture), 4096)])
	switch {
	case strings.HasPrefix(begin, "RIFF") && len(begin) > 12 && begin[8:12] == "WEBP":
		return "image/webp"
	case utf8.Valid(picture) && strings.Contains(begin, "<svg"):
		return "image/svg+xml"
	}
	return ""
}
