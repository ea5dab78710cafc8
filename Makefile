# Thin verbs; everything with a decision in it lives in tools/sel4-compose.
# `make` alone explains them.

CAPS    ?= console
TIMEOUT ?= 60
KERNEL  ?= release

export DOCS_RS = 1

compose = cargo run -q -p sel4-compose -- --kernel $(KERNEL) \
	$(if $(SEL4_PREFIX),--prefix "$(SEL4_PREFIX)") \
	$(if $(ICOUNT),--icount) $(if $(LOG),--log)
application = "$(APP)" $(if $(BIN),--bin "$(BIN)") --caps "$(CAPS)"

.PHONY: help simulate app gdb

help:
	@echo "make simulate               boot the default system"
	@echo "make app APP=... CAPS=...   run one application"
	@echo "make gdb APP=...            the same, paused for a debugger"

simulate:
	@$(compose) simulate --timeout $(TIMEOUT)

app:
	@$(compose) app $(application) --timeout $(TIMEOUT)

gdb:
	@$(compose) gdb $(application)
