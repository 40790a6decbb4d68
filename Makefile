# `make quickstart` for a first look, `make test` before a pull request; the rest: `make help`.
.POSIX:

PYTHON = python3
JOBS = 2
RUN = .venv/bin/python
# One thread per process: the tests run in $(JOBS) processes, and threads that outnumber cores crawl.
ONE_THREAD = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
HEADLESS = SDL_VIDEODRIVER=dummy SDL_AUDIODRIVER=dummy MPLBACKEND=Agg PYGAME_HIDE_SUPPORT_PROMPT=1
# Tests that compute, and so depend on the processor in their last bits.
NUMERIC = tests/agents tests/envs tests/generative tests/worldmodels
# Tests that run commands or worker processes.
COMMANDS = tests/scripts tests/reliability tests/generative/test_families.py tests/agents \
	tests/envs/test_pool.py tests/worldmodels/test_scoring.py tests/generative/training/parallel
INSTALL = @PYTHON='$(PYTHON)' sh .ci/install.sh

.PHONY: help install quickstart drive test test-nightly bench certificates docs lint format

help:
	@echo "make quickstart    install if needed, train a car in its dream (10 minutes to an hour)"
	@echo "make drive         film the trained car on a real track, beside its dream"
	@echo "make install       make .venv and install the project and its pinned versions"
	@echo "make test          run the tests (test-nightly: the slow ones, other libraries)"
	@echo "make bench         measure speed, and write docs/performance.md's table (20 minutes)"
	@echo "make certificates  train what has a known optimum, and compare (8 hours of a core)"
	@echo "make docs          build the pages as a site with search and a reference, in build/site"
	@echo "make lint          check style (format: repair what can be)"

install:
	$(INSTALL)

quickstart: install
	@$(HEADLESS) $(RUN) scripts/train_in_dream.py quick --out runs/quickstart
	@echo
	@echo "Open runs/quickstart/report.html in a browser: scores, curves, and the car's films."

drive: install
	@$(HEADLESS) $(RUN) scripts/render_dream.py pretrained/carracing-dream --out runs/drive.mp4
	@echo "Open runs/drive.mp4 in a browser or player: the real track, and beside it the dream."

test:
	$(INSTALL) test
	@$(ONE_THREAD) $(HEADLESS) $(RUN) -m pytest -n $(JOBS) --dist worksteal $(TESTS)

test-nightly:
	$(INSTALL) oracles
	@$(RUN) -c "import axe_playwright_python, diffusers, torchdiffeq, transformers"  # without which tests are skipped
	@$(ONE_THREAD) $(HEADLESS) $(RUN) -m pytest -n $(JOBS) -m "slow or nightly or oracle" $(TESTS)
	@echo "== with every command in an interpreter of its own, see tests/warm.py"
	@COLD_PROGRAMS=1 $(ONE_THREAD) $(HEADLESS) $(RUN) -m pytest -n $(JOBS) $(COMMANDS)
	@for setting in ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2; do \
		echo "== as on another processor: $$setting"; \
		env "$$setting" $(ONE_THREAD) $(HEADLESS) $(RUN) -m pytest -n $(JOBS) \
			--hypothesis-profile=nightly $(NUMERIC) || exit 1; \
	done
	@echo "== with other last bits, see tests/last_bits.py"
	@$(ONE_THREAD) $(HEADLESS) $(RUN) -m pytest -n $(JOBS) -p tests.last_bits $(NUMERIC) \
		--deselect tests/generative/training/parallel/test_parallel.py::test_results_do_not_depend_on_the_number_of_workers

bench:
	$(INSTALL) bench
	@mkdir -p docs/results/benchmarks
	@for name in dream car training evolution drawings generation sb3_dream; do \
		echo "== benchmarks/$$name.py"; \
		$(ONE_THREAD) $(HEADLESS) $(RUN) "benchmarks/$$name.py" \
			--json "docs/results/benchmarks/$$name.json" || exit 1; \
	done
	@echo "== benchmarks/scaling.py"
	@$(ONE_THREAD) $(HEADLESS) $(RUN) benchmarks/scaling.py --page docs/cluster.md \
		--json docs/results/benchmarks/scaling.json
	@$(RUN) benchmarks/page.py

certificates: install
	@$(ONE_THREAD) $(HEADLESS) $(RUN) scripts/certificates.py --workers $(JOBS)

docs:
	$(INSTALL) docs
	@$(RUN) docs/build.py

lint:
	$(INSTALL) dev
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pyright

format:
	$(INSTALL) dev
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .
