# SPDX-License-Identifier: Apache-2.0
# llhttp: Debian 12 ships its C sources in node-llhttp.
LLHTTP_SRCS := $(wildcard /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c)
LLHTTP_CFLAGS := -I/usr/share/include/llhttp
