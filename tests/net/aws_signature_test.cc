// The examples of the S3 documentation (Signature Calculations for the Authorization Header), with its keys.
#include "net/aws_signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wormhole {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

const AwsKeys kKeys{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
constexpr int64_t kThen = 1369353600;  // 2013-05-24 00:00:00 UTC

std::string signature(const std::string& url, const AwsKeys& keys = kKeys) {
  for (const std::string& header : aws_signature("GET", *Url::parse(url), keys, "us-east-1", kThen)) {
    if (header.starts_with("Authorization:")) return header.substr(header.rfind('=') + 1);
  }
  return "none";
}

TEST(AwsSignature, IsThatOfTheExamples) {
  EXPECT_EQ(signature("https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J"),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
  EXPECT_EQ(signature("https://examplebucket.s3.amazonaws.com/?lifecycle"),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(AwsSignature, TheOrderOfAQueryAndHowItIsEncodedDoNotMatter) {
  EXPECT_EQ(signature("http://h/b?b=%2f+&a=~"), signature("http://h/b?a=%7E&b=%2F%2B"));
  EXPECT_NE(signature("http://h/b?a=%2B"), signature("http://h/b?a=%20"));
}

TEST(AwsSignature, TheHeadersSayWhoAndWhenAndNotTheSecret) {
  AwsKeys keys = kKeys;
  keys.session_token = "token+/=";
  const auto headers = aws_signature("HEAD", *Url::parse("http://host:9000/b/k"), keys, "eu-central-1", kThen);
  EXPECT_THAT(headers, Contains("x-amz-date: 20130524T000000Z"));
  EXPECT_THAT(headers, Contains("x-amz-security-token: token+/="));
  EXPECT_THAT(headers, Contains(HasSubstr("Credential=AKIAIOSFODNN7EXAMPLE/20130524/eu-central-1/s3/aws4_request,")));
  EXPECT_THAT(headers, Contains(HasSubstr("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,")));
  EXPECT_THAT(headers, Not(Contains(HasSubstr(kKeys.secret))));
  EXPECT_NE(signature("http://host:9000/b/k", keys), signature("http://host/b/k", keys));
}

}  // namespace
}  // namespace wormhole
