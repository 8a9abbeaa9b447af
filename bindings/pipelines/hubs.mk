# Lists the hubs page by page, in parallel: make -j8 -f hubs.mk
#
# Each recipe is a process of its own, and they all share one token.

API = $(or $(AMPLIENCE_API_URL),https://api.amplience.net)
PAGES = 0 1 2 3 4 5 6 7

all: $(PAGES:%=hubs-%.json)

hubs-%.json:
	@header=$$(amp-token header) && printf '%s\n' "$$header" | \
	    curl -fsS -H @- -o $@ '$(API)/v2/content/hubs?page=$*&size=1'

clean:
	rm -f $(PAGES:%=hubs-%.json)

# A page that was not fetched whole is not taken for a good one in the next run.
.DELETE_ON_ERROR:
.PHONY: all clean
