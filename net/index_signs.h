// Is this HTML page the index of a directory, and all of it? Servers answer a directory with an ordinary page, too
// (index.html, a login form, an error with status 200), and taking that for a listing would empty a directory.
//
// A page is an index when it says so:
//   - a title or heading is "Index of", "Directory listing for" or the like, and a path: nginx, Apache, lighttpd, ...
//   - or it has the table of Caddy's template, whose title is the bare name of the directory
//   - or it has nothing but links in a <pre>, as Go's file server sends it
//
// It is complete when </html> was seen, or when the list that holds the entries was closed behind the last one. (The
// length of a body does not tell: with chunks, or with HTTP/1.0, a proxy that gives up can leave a well-formed half.)
//
// Thread: the parser's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace wormhole {

class IndexSigns {
 public:
  // The document, in its order: raw bytes, and what the HTML parser makes of them.
  void bytes(std::string_view raw);
  void start_element(std::string_view name);
  void end_element(std::string_view name);
  void text(std::string_view text, bool inside_link);
  void entry();           // a link to a child of the directory
  void caddy_table();     // <table aria-describedby="summary">
  void document_ended();  // elements that end after this were left open

  bool is_caddy() const { return caddy_; }
  bool is_index() const { return named_index_ || caddy_ || is_bare_list(); }
  bool is_complete() const { return html_closed_ || list_closed_; }
  // False when nothing that may follow makes it an index.
  bool may_become_index() const;

 private:
  bool is_bare_list() const { return pre_seen_ && !text_elsewhere_; }

  uint64_t bytes_seen_ = 0;
  std::string tail_;     // of the bytes before, where "</html" may have begun
  std::string heading_;  // text of the title or heading that is open
  bool in_heading_ = false;
  bool named_index_ = false;
  bool caddy_ = false;
  bool pre_seen_ = false;
  bool text_elsewhere_ = false;
  bool html_closed_ = false;
  bool list_closed_ = false;
  bool document_ended_ = false;
};

}  // namespace wormhole
