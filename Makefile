# check: what CI checks before the tests      test: the tests      fuzz: the property tests on new examples
# demo:  the whole chain, dataset to robot    bench: the benchmarks
# distillation: does it pay, and which term does (some hours); writes docs/ablation.md
# packaged-student: the demo, and its student made the packaged one
.PHONY: check test fuzz test-vllm bench demo packaged-student assets distillation

# Where the chain writes, and how large it is. make demo stays within 15 minutes on two cores.
OUT ?= out/demo
SESSIONS ?= 56
SECONDS_EACH ?= 20
SEED ?= 7
TUNE ?= configs/teacher/tiny.yaml
TRAIN ?= configs/distill/demo.yaml
PY = uv run python -m
# The last session is a held-out one: its speaker was never seen in training.
LAST = $(shell printf %05d $$(($(SESSIONS) - 1)))

check:
	uv run ruff check .
	uv run ruff format --check .
	uv run pyright
	uv run lint-imports

test:
	uv run pytest

# The property tests draw the same examples every time; here they draw others, ROUNDS times over.
ROUNDS ?= 20
fuzz:
	for round in $$(seq $(ROUNDS)); do \
		uv run pytest -q -m hypothesis --hypothesis-profile=new || exit 1; \
	done

# vLLM's own engine, on the CPU through a shim, serves the tiny teacher (8 GB of packages, some minutes).
test-vllm:
	uv run --with "vllm==0.32.*" pytest tests/test_teacher_vllm.py tests/test_teacher_describe.py -k vllm

# CLIP=film.mp4 plays the loop's minute on it; CLIPS=DIR is a folder of talking people for the face stage.
bench:
	uv run python -m benchmarks.loop $(if $(CLIP),--source $(CLIP))
	uv run python -m benchmarks.servo_lag
	uv run python -m benchmarks.physics
	uv run python -m benchmarks.network --out benchmarks/results/network.json
	uv run python -m benchmarks.soak
	$(if $(CLIPS),uv run python -m benchmarks.faces --clips $(CLIPS))
	uv run python benchmarks/student.py
	uv run python -m benchmarks.metrics
	uv run python -m benchmarks.intervals
	uv run python benchmarks/teacher.py
	uv run python -m benchmarks.figures

demo:
	$(PY) dyad.synthetic --out $(OUT)/dyads --sessions $(SESSIONS) --seconds $(SECONDS_EACH) --seed $(SEED)
	$(PY) teacher.tune --config $(TUNE) --dataset $(OUT)/dyads --out $(OUT)/teacher
	$(PY) teacher.label --teacher $(OUT)/teacher --dataset $(OUT)/dyads --out $(OUT)/labels
	$(PY) distill.train --config $(TRAIN) --dataset $(OUT)/dyads --labels $(OUT)/labels --out $(OUT)/student
	$(PY) deploy.build_engine --checkpoint $(OUT)/student/checkpoint --out $(OUT)/engine
	$(PY) distill.evaluate --engine $(OUT)/engine --dataset $(OUT)/dyads --split val --out $(OUT)/evaluation
	$(PY) deploy.run --robot --engine $(OUT)/engine --source $(OUT)/dyads/media/dyad_$(SEED)_$(LAST)_speaker.mp4 \
		--audio $(OUT)/dyads/media/dyad_$(SEED)_$(LAST)_speaker.wav --save $(OUT)/run.mp4 --report $(OUT)/run.json

# The student and clip that ship: what make demo leaves, put in their place, and the README's figures with them.
packaged-student: demo assets

assets:
	uv run python -m benchmarks.package_assets --chain $(OUT)

# A hundred short conversations, a hundred and twenty more speakers, a stand-in teacher, and every arm three times.
D = out/distillation
GIVEN = --dataset $(D)/dyads --labels $(D)/teacher/labels --extra $(D)/speakers --extra-labels $(D)/teacher/extra
distillation:
	$(PY) dyad.synthetic --out $(D)/dyads --sessions 100 --seconds 30 --seed 31 --val-share 0.4
	$(PY) dyad.synthetic --out $(D)/speakers --sessions 121 --seconds 30 --seed 32 --val-share 0.008
	$(PY) benchmarks.stand_in_teacher --dataset $(D)/dyads --extra $(D)/speakers --out $(D)/teacher
	for arms in distillation losses terms teachers; do \
		$(PY) distill.ablate --arms configs/ablation/$$arms.yaml $(GIVEN) --out $(D)/$$arms --report docs/ablation.md \
			--results benchmarks/results/$$arms.json $$(test $$arms = distillation && echo --engines) || exit 1; \
	done
	$(PY) benchmarks.planted_lags --dataset $(D)/dyads \
		--predictions $(D)/distillation/distilled/*/predictions --report docs/ablation.md
	$(PY) benchmarks.int8_cost --dataset $(D)/dyads --int8 $(D)/distillation/distilled/*/predictions \
		--float32 $(D)/distillation/distilled-float-trained-as-long/*/predictions
	$(PY) benchmarks.peer_quality --arms configs/ablation/distillation.yaml $(GIVEN) --out $(D)/distillation --engines \
		--results benchmarks/results/peer_quality.json --report docs/ablation.md
	$(PY) benchmarks.figures
