# SPDX-License-Identifier: Apache-2.0
# llhttp: Debian 13 has it as a library (libllhttp-dev); Debian 12 ships its C sources in node-llhttp, built here.
LLHTTP_SRCS := $(wildcard /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c)
ifeq ($(wildcard /usr/include/llhttp.h),)
LLHTTP_CFLAGS := -I/usr/share/include/llhttp
else
LLHTTP_SRCS :=
LIBS_ENGINE += -lllhttp
endif
