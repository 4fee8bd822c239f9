"""xDS as bytes: Envoy's discovery messages, our resources, upstream's `RateLimitConfig`. Both ends use these modules.

By hand, because they are a few fields each, the bulk of a response is bodies that nobody needs to take apart, and the
protobuf runtime would cost operator and service their memory. `config.proto` and `rls_conf.proto` are the contract.
"""
