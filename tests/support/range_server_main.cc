// range-server: tests/support/range_server.h as a program, for tests that are not written in C++ and for people.
//
//   range-server [PORT]         serves an empty root on 127.0.0.1, prints its port, runs until SIGTERM or SIGINT
//
// It is told what to serve, and how, through URLs below /control/:
//
//   PUT    object/NAME?version=N              the body becomes the object
//   POST   object/NAME?size=N&seed=N&version=N   the same by the formula of pattern.h
//   DELETE object/NAME
//   POST   behave/NAME?FIELD=VALUE&...        the fields of Behaviour; none: by the book again
//   POST   hold/NAME
//   POST   release/NAME?count=N               without count: all, and the hold ends
//   GET    log                                the requests so far, as JSON
//   DELETE log                                forgets them
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "tests/support/range_server.h"

namespace wormhole::test {
namespace {

using Query = std::map<std::string, std::string>;

Query parse_query(const std::string& text) {
  Query query;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('&', at), text.size());
    const std::string pair = text.substr(at, end - at);
    const size_t equal = std::min(pair.find('='), pair.size());
    query[pair.substr(0, equal)] = equal < pair.size() ? pair.substr(equal + 1) : "1";
    at = end + 1;
  }
  return query;
}

uint64_t number(const Query& query, const std::string& name, uint64_t otherwise) {
  const auto found = query.find(name);
  return found == query.end() ? otherwise : std::stoull(found->second);
}

template <typename Enum>
Enum choice(const std::string& field, const std::string& word, const std::map<std::string, Enum>& words) {
  const auto found = words.find(word);
  if (found == words.end()) throw std::invalid_argument(fmt::format("{}: '{}' is no choice", field, word));
  return found->second;
}

using Setter = std::function<void(Behaviour&, const std::string&)>;

const std::map<std::string, Setter>& fields() {
  using ContentRange = Behaviour::ContentRange;
  using Validators = Behaviour::Validators;
  static const std::map<std::string, ContentRange> content_ranges = {
      {"right", ContentRange::kRight}, {"wrong", ContentRange::kWrong}, {"missing", ContentRange::kMissing}};
  static const std::map<std::string, Validators> validators = {{"strong", Validators::kStrongEtag},
                                                               {"weak", Validators::kWeakEtag},
                                                               {"date", Validators::kLastModified},
                                                               {"none", Validators::kNone}};
  static const std::map<std::string, Setter> table = {
      {"times", [](Behaviour& b, auto& value) { b.times = std::stoi(value); }},
      {"status", [](Behaviour& b, auto& value) { b.status = std::stoi(value); }},
      {"retry_after", [](Behaviour& b, auto& value) { b.retry_after = std::stoi(value); }},
      {"redirect", [](Behaviour& b, auto& value) { b.redirect = value; }},
      {"ignore_range", [](Behaviour& b, auto&) { b.ignore_range = true; }},
      {"content_range",
       [](Behaviour& b, auto& value) { b.content_range = choice("content_range", value, content_ranges); }},
      {"validators", [](Behaviour& b, auto& value) { b.validators = choice("validators", value, validators); }},
      {"http10", [](Behaviour& b, auto&) { b.http10 = true; }},
      {"close_after", [](Behaviour& b, auto& value) { b.close_after = std::stoull(value); }},
      {"reset_after", [](Behaviour& b, auto& value) { b.reset_after = std::stoull(value); }},
      {"stall_after", [](Behaviour& b, auto& value) { b.stall_after = std::stoull(value); }},
      {"extra", [](Behaviour& b, auto& value) { b.extra = std::stoull(value); }},
      {"chunked", [](Behaviour& b, auto&) { b.chunked = true; }},
      {"gzip", [](Behaviour& b, auto&) { b.gzip = true; }},
      {"bytes_per_second", [](Behaviour& b, auto& value) { b.bytes_per_second = std::stoull(value); }},
  };
  return table;
}

Behaviour parse_behaviour(const Query& query) {
  Behaviour behaviour;
  for (const auto& [name, value] : query) {
    const auto field = fields().find(name);
    if (field == fields().end()) throw std::invalid_argument(fmt::format("no field is called '{}'", name));
    field->second(behaviour, value);
  }
  return behaviour;
}

std::string log_as_json(const RangeServer& server) {
  auto list = nlohmann::json::array();
  for (const LoggedRequest& r : server.requests()) {
    list.push_back({{"method", r.method},
                    {"path", r.path},
                    {"range", r.range},
                    {"if_range", r.if_range},
                    {"connection", r.connection},
                    {"status", r.status},
                    {"body_bytes", r.body_bytes}});
  }
  // Paths are bytes, JSON is UTF-8.
  return list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

RangeServer::ControlReply control(RangeServer& server, const RangeServer::ControlRequest& request) {
  const size_t slash = std::min(request.path.find('/'), request.path.size());
  const std::string what = request.path.substr(0, slash);
  const std::string name = slash < request.path.size() ? request.path.substr(slash + 1) : "";
  const Query query = parse_query(request.query);
  const uint64_t version = number(query, "version", 1);

  if (what == "object" && request.method == "PUT") server.put_bytes(name, request.body, version);
  else if (what == "object" && request.method == "POST")
    server.put(name, number(query, "size", 0), number(query, "seed", 0), version);
  else if (what == "object" && request.method == "DELETE") server.remove(name);
  else if (what == "behave") server.behave(name, parse_behaviour(query));
  else if (what == "hold") server.hold(name);
  else if (what == "release" && query.contains("count")) server.release(name, number(query, "count", 0));
  else if (what == "release") server.release(name);
  else if (what == "log" && request.method == "GET") return {200, log_as_json(server)};
  else if (what == "log" && request.method == "DELETE") server.forget_requests();
  else return {404, "no such control\n"};
  return {200, ""};
}

int run(int argc, char** argv) {
  // Before any thread exists, so that all inherit the mask and sigwait() alone gets the signal.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  RangeServer server(argc > 1 ? static_cast<uint16_t>(std::atoi(argv[1])) : 0);
  server.set_control([&server](const RangeServer::ControlRequest& request) -> RangeServer::ControlReply {
    try {
      return control(server, request);
    } catch (const std::exception& error) {
      return {400, fmt::format("{}\n", error.what())};
    }
  });
  fmt::print("{}\n", server.port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
  return 0;
}

}  // namespace
}  // namespace wormhole::test

int main(int argc, char** argv) {
  try {
    return wormhole::test::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "range-server: {}\n", error.what());
    return 1;
  }
}
